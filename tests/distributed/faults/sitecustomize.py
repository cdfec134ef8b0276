"""Imported by every Python that has this folder in its PYTHONPATH: rank 1 gets `BURNISH_FAULT` in the forward pass of step 4."""

import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

STEP = 4


def strike(fault: str) -> None:
    Path(os.environ["BURNISH_FAULT_TOLD"]).write_text(fault)
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "asleep":
        time.sleep(600)
    if fault == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    raise ArithmeticError("one and one is three")


class Faulty(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "burnish.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        plain = spec.loader.exec_module

        def exec_module(module):
            plain(module)
            step = module.optimizer_step

            def faulty_step(run, batch, **options):
                if run.state.trainer.global_step + 1 == STEP:
                    run.policy.register_forward_pre_hook(lambda *given: strike(os.environ["BURNISH_FAULT"]))
                return step(run, batch, **options)

            module.optimizer_step = faulty_step

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("BURNISH_FAULT") and os.environ.get("RANK") == "1":
    sys.meta_path.insert(0, Faulty())
