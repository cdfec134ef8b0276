"""Whether Python code does what it should: a completion's last fenced block, run against the row's tests or inputs and outputs.

    tests             a text or list of texts: statements that run after the code, and raise where it is wrong (assert f(2) == 4)
    stdin, stdout     texts or lists of texts: what the program reads, and what it prints

**How far a program is confined.** Each run is a process of its own, ``python -I`` without environment, in an empty folder that is removed
afterwards, with limits on processor time, wall time, memory, the size of files, open files and processes (which last the system does not
apply to root). Other processes are refused by Python's audit hooks, which code that means harm can get round. On Linux, where the system
lets a process make user namespaces, it has no network at all, and whatever processes it has made nevertheless end with it. Elsewhere (in
containers often, and on macOS) sockets are refused by audit hooks, too. In neither case is the file system hidden: a program reads what the
trainer's user may read, and writes where that user may write. Whoever trains on code that may mean harm runs the whole training in a
container. Nor is a program kept from deceiving its tests, which run in its process: ending early does not pass them, but looking for the
token that says they passed can. Against stdout there is no such way.
"""

from __future__ import annotations

import json
import math
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.rewards.answers import column
from burnish.rewards.samples import RewardError, Sample

FENCE = "```"
PYTHON = ("", "python", "python3", "py")
CONFINED = str(Path(__file__).with_name("confined.py"))
WAITING = 4
PRINTED = 16 * 2**20
"""Bytes of the largest file, and so of what is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of a program."""

    passed: bool
    """It came to its end, and its exit status was 0."""
    stdout: str
    how: str
    """By which it was confined: "namespaces", "audit", or "" where it did not come to its end."""


def code(*, timeout: float = 5.0, memory_mib: int = 512, partial: bool = False) -> Callable[[Sample], float | None]:
    """1 where the code passes all tests, or prints all outputs, and 0 where not, or where there is no code.

    With `partial` it is the share of them, each run in a process of its own. A program is wrong that
    takes more than `timeout` seconds of a processor (rounded up to whole ones), or `WAITING` times as long by the clock, as a busy machine
    may make it, or more than `memory_mib`. None where the row's cells are None or empty.
    """

    def reward(sample: Sample) -> float | None:
        cases = cases_of(sample, partial)
        program = last_block(sample.text)
        if not cases:
            return None
        if program is None:
            return 0.0
        passed = 0
        for tests, given, wanted in cases:
            run = run_program(f"{program}\n{tests}\n", given, timeout=timeout, memory_mib=memory_mib, main=wanted is not None)
            right = run.passed and (wanted is None or _lines(run.stdout) == _lines(wanted))
            passed += right
            if not right and not partial:
                return 0.0
        return passed / len(cases)

    return reward


def last_block(text: str) -> str | None:
    """The code of the last fenced block that is Python's or nobody's; None where there is none."""
    found, inside, language = None, list[str](), None
    for line in text.splitlines():
        if language is None and line.lstrip().startswith(FENCE):
            language, inside = line.strip().removeprefix(FENCE).strip().lower(), []
        elif language is not None and line.strip() == FENCE:
            found, language = (textwrap.dedent("\n".join(inside)) if language in PYTHON else found), None
        else:
            inside.append(line)
    return found


def cases_of(sample: Sample, partial: bool) -> list[tuple[str, str, str | None]]:
    """Of each run: statements that follow the code, what it reads, and what it is to print, where that counts."""
    if "tests" in sample.columns:
        tests = _several(sample.columns["tests"])
        return [(test, "", None) for test in tests] if partial else [("\n".join(tests), "", None)] * bool(tests)
    if not {"stdin", "stdout"} & set(sample.columns):
        raise RewardError("needs the column 'tests', or 'stdin' and 'stdout', which the row does not have")
    given, wanted = _several(column(sample, "stdin")), _several(column(sample, "stdout"))
    if len(given) != len(wanted):
        raise RewardError(f"needs as many texts in 'stdin' as in 'stdout', and the row has {len(given)} and {len(wanted)}")
    return [("", one, other) for one, other in zip(given, wanted, strict=True)]


def _several(cell: Any) -> list[str]:
    return [] if cell is None else [cell] if isinstance(cell, str) else [str(one) for one in cell]


def _lines(text: str) -> list[str]:
    """Without white space at the ends of lines, and empty lines at the end."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def run_program(program: str, given: str, *, timeout: float, memory_mib: int, main: bool) -> Run:
    """The program, run confined, reading `given`; as ``__main__`` or under another name. Raises RewardError where no process starts."""
    token = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(prefix="burnish-code-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as read, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as done,
    ):  # fmt: skip
        job = {"token": token, "done": done.fileno(), "run_name": "__main__" if main else "program", "limits": _limits(timeout, memory_mib)}
        Path(folder, "program.py").write_text(program, encoding="utf-8", errors="replace")
        Path(folder, "job.json").write_text(json.dumps(job), encoding="utf-8")
        read.write(given.encode(errors="replace"))
        read.seek(0)
        status = _waited(folder, read, printed, done.fileno(), WAITING * timeout)
        for file in (printed, done):
            file.seek(0)
        said = done.read(100).decode(errors="replace")
        ended = status == 0 and (main or said.startswith(token))
        return Run(passed=ended, stdout=printed.read(PRINTED).decode(errors="replace"), how=said.removeprefix(token).strip())


def _waited(folder: str, read: Any, printed: Any, done: int, timeout: float) -> int | None:
    """The exit status; None where its time was over."""
    environment = {"PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HOME": folder, "TMPDIR": folder}
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", CONFINED], cwd=folder, env=environment, stdin=read, stdout=printed, stderr=subprocess.DEVNULL,
            pass_fds=[done], start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise RewardError(f"could not start a process for the code ({error})") from error
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):  # whatever it has left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _limits(timeout: float, memory_mib: int) -> dict[int, int]:
    return {
        resource.RLIMIT_CPU: math.ceil(timeout),
        resource.RLIMIT_AS: memory_mib * 2**20,
        resource.RLIMIT_FSIZE: PRINTED,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 32,
        resource.RLIMIT_CORE: 0,
    }
