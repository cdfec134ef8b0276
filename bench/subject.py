"""Runs `one_run.py` for one library in a process of its own, and says plainly when that cannot be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_once(spec: dict[str, Any], python: Path | None = None) -> dict[str, Any]:
    """One training run in a fresh process, by this interpreter unless another is named; see `one_run.py` for both records.

    Raises:
        SystemExit: the run failed; its last lines are passed on.
    """
    return run_all([spec], python)[0]


def run_all(specs: Sequence[dict[str, Any]], python: Path | None = None) -> list[dict[str, Any]]:
    """Several runs of one library, one after another in one fresh process: for what no clock or memory is read of."""
    with tempfile.TemporaryDirectory() as scratch:
        question, answer = Path(scratch, "spec.json"), Path(scratch, "result.json")
        question.write_text(json.dumps(specs))
        command = [str(python or sys.executable), str(Path(__file__).with_name("one_run.py")), str(question), str(answer)]
        threads = str(specs[0]["threads"])
        environment = os.environ | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
            begun = next(
                (line for line in reversed(done.stdout.splitlines()) if line.startswith("options ")), f"options were {specs[0]['options']}"
            )
            raise SystemExit(f"{last}\n\nThe {specs[0]['library']} run failed, with the lines above; its {begun}.")
        return json.loads(answer.read_text())


def trl_python(path: Path) -> Path:
    if not path.exists():
        raise SystemExit(f"{path} is absent: name by --trl-python the interpreter of an environment with torch==2.13.0 and trl==1.16.0.")
    return path
