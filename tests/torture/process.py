"""One process of a run, from the inside: `burnish` as its user runs it, with a fault at a chosen moment.

It knows by its events which phase it is in: files that are touched (Python's audit events), and what callbacks are told.
The fault comes right before the n-th event of a phase. What leaves no event, a write under way or a hash, is hit by faults that
come from outside, after so many seconds of processor time, which are the same on a busy machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import torch

PHASES = {
    "start": r"before (open run/(\.lock|events|resolved|environment|data|metrics)|os.mkdir run$)",
    "tokenise": r"before \S+ cache/",
    "reference": r"before known$",
    "find": r"before \S+ run/checkpoint-",
    "first step": r"first on_(step|substep|pre_optimizer|optimizer)",
    "sample": r"\w+ sampled$",
    "score": r"\w+ scored$",
    "write samples": r"\w+ (open|os.mkdir|os.truncate|os.remove) run/samples",
    "train": r"later on_(step|substep|pre_optimizer|optimizer)",
    "evaluate": r"\w+ on_(prediction|evaluate)",
    "save": r"\w+ (open|os.mkdir) run/tmp-checkpoint",
    "publish": r"\w+ os.rename run/(tmp-checkpoint|replaced)|later open run$",
    "rotate": r"later \S+ run/checkpoint-|\w+ (os.remove|os.rmdir|shutil.rmtree) run/tmp-checkpoint",
    "export": r"\w+ open run/(config|generation_config|chat_template|tokenizer)",
}
"""By their events: how far training is (before the first step, in it, later), what happens, and to which file."""
OF_SOME = ("reference", "sample", "score", "write samples")
"""Phases that not every way of training has."""
STAGES = {"on_train_begin": "first", "on_step_end": "later"}
ANY = "any"
"""Whatever phase it is after so many seconds."""
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
HIT, END = "\0", "\1"
"""In the output: the fault is here; the run has ended, and facts follow."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The `number`-th event of a phase; of ANY phase, so many seconds of processor time."""

    phase: str
    number: float


@dataclass(frozen=True, kw_only=True)
class Fault:
    kind: str
    moment: Moment
    rank: int = 0
    """Of the process that has it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    arguments: list[str]
    folder: Path
    """What the process touches lies below it, in cache/ and run/."""
    fault: Fault | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    clock: float = 0.0
    """Hours by which the clock is wrong. Where it is, it runs backwards."""


def run(task: Task, output: Any, supervisor: Any = None) -> None:
    """In a process of its own, which ends with it. `output` and `supervisor` are pipes."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    os.environ |= {"BURNISH_CACHE": str(task.folder / "cache"), **quiet, **task.environment}
    if supervisor is not None:
        os.environ["BURNISH_SUPERVISOR"] = str(supervisor.fileno())
    torch.set_num_threads(1)
    if task.clock:
        _turn_clock_back(task.clock)
    if task.fault and task.fault.kind == "read-only":
        _obey_permissions()
    counts = _watch(task)
    _say_at_exit(counts)
    from burnish.cli.main import main

    os._exit(main(task.arguments))


def _say_at_exit(counts: Mapping[str, int]) -> None:
    """One of several ranks ends in `main`, and one that is told so by another in a thread."""
    begun, pid, plain = time.process_time(), os.getpid(), os._exit

    def leave(status: int) -> None:
        if os.getpid() == pid:
            sys.stdout.flush()
            os.write(1, f"{END}{json.dumps({'counts': counts, 'seconds': time.process_time() - begun})}{END}".encode())
        plain(status)

    os._exit = leave  # type: ignore[assignment]


def _watch(task: Task) -> dict[str, int]:
    """Counts the events of each phase, and brings the fault."""
    from burnish.run import Run

    counts, stage, fault = dict.fromkeys(PHASES, 0), "before", task.fault

    def happens(event: str) -> None:
        for phase, pattern in PHASES.items():
            if re.match(pattern, f"{stage} {event}"):
                counts[phase] += 1
                if fault and (phase, counts[phase]) == (fault.moment.phase, fault.moment.number):
                    os.write(1, HIT.encode())
                    KINDS[fault.kind](task.folder)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event in TOUCHES and (path := _path(event, given)) and path.startswith(f"{task.folder}/"):
            happens(f"{event} {path[len(str(task.folder)) + 1 :]}")

    plain = Run.fire

    def fire(self: Run, event: str, **what: Any) -> None:
        nonlocal stage
        happens(event)
        stage = STAGES.get(event, stage)
        plain(self, event, **what)

    Run.fire = fire  # type: ignore[method-assign]
    _tell(happens)
    sys.addaudithook(hook)
    return counts


def _tell(happens: Callable[[str], None]) -> None:
    """Of what is computed, beside the files that are touched."""
    from burnish.data.known_logps import KnownLogps
    from burnish.rewards.scoring import Rewards
    from burnish.rollout.collect import OneTurn

    add, one_more, finish = KnownLogps.add, OneTurn.rollout, Rewards.finish

    def known(self: KnownLogps, items: Any) -> None:
        happens("known")
        add(self, items)

    def sampled(self: OneTurn, completion: Any) -> Any:
        happens("sampled")
        return one_more(self, completion)

    def scored(self: Rewards, samples: Any, functions: Any) -> Any:
        happens("scored")
        return finish(self, samples, functions)

    KnownLogps.add = known  # type: ignore[method-assign]
    OneTurn.rollout, Rewards.finish = sampled, scored  # type: ignore[method-assign]


def _path(event: str, given: tuple[Any, ...]) -> str | None:
    """Of what is touched, where it is said relative to an open folder, too."""
    path, folder = given[0], given[-1] if event in ("os.remove", "os.rmdir", "shutil.rmtree") else None
    if not isinstance(path, str | Path):
        return None
    if isinstance(folder, int) and folder >= 0 and not os.path.isabs(path):
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return str(path)


def _sends(number: signal.Signals) -> Callable[[Path], None]:
    return lambda folder: os.kill(os.getpid(), number)


def _fill_disk(folder: Path) -> None:
    """No file can grow from now on, as with a disk or a quota that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _forbid(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


KINDS = {
    "kill -9": _sends(signal.SIGKILL),
    "SIGTERM": _sends(signal.SIGTERM),
    "pause": _sends(signal.SIGSTOP),
    "disk full": _fill_disk,
    "read-only": _forbid,
}


def _obey_permissions() -> None:
    """Root, too: without the capabilities that let it write anywhere. It changes this process alone."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        none = (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(header, none):
            raise OSError(ctypes.get_errno(), "capset")


def _turn_clock_back(hours: float) -> None:
    """Each look at it shows an earlier time than the one before."""
    import burnish.report.events as events

    now, looks = time.time() - 3600 * hours, 0

    def back() -> float:
        nonlocal looks
        looks += 1
        return now - 60.0 * looks

    class Back(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(back(), tz)

    time.time, time.time_ns = back, lambda: int(back() * 1e9)
    events.datetime = Back  # type: ignore[misc]
