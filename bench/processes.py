"""One turn: a process of its own, and what the operating system says it took."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LAST = 15
"""Lines of a failed process that are passed on."""


class TurnError(RuntimeError):
    """A process did not end as it should; its last lines are in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a process took from its start to its end, with those that it waited for."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    """The largest that one of them held resident."""


def environment(threads: int) -> dict[str, str]:
    """Of a subject: threads, no network, no GPU (whatever a library would choose), this process's folder for temporary files, and this
    repository to import `bench` from."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | quiet | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path, "TMPDIR": tempfile.gettempdir()}


def timed(command: Sequence[str], threads: int, *, status: int = 0) -> tuple[Taken, str]:
    """Runs `command`; what it took, and what it printed.

    Raises:
        TurnError: it ended with another status than `status`.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        answer, said = Path(scratch, "answer"), Path(scratch, "said")
        waiter = [sys.executable, "-I", "-S", str(Path(__file__).with_name("waiter.py")), str(answer), *command]
        with said.open("w") as out:
            process = subprocess.Popen(
                waiter, env=environment(threads), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, process_group=0
            )
            try:
                process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        text = said.read_text(errors="replace")
        if not answer.exists():
            raise TurnError(f"{text}\n\n{' '.join(command)} could not be started.")
        ended, cpu, wall, peak = map(float, answer.read_text().split())
    if ended != status:
        lines = text.strip().splitlines()
        begun = next((line for line in reversed(lines) if line.startswith("options ")), "")
        raise TurnError("\n".join([*lines[-LAST:], "", f"{' '.join(command)} ended with status {ended:.0f}", begun]))
    return Taken(cpu_s=cpu, wall_s=wall, peak_bytes=int(peak) * (1 if sys.platform == "darwin" else 1024)), text


def ask(subject: str, specs: Sequence[dict[str, Any]], *, python: Path | None = None, threads: int = 1) -> tuple[list[Any], Taken]:
    """The answers of `bench.subjects.{subject}`, one for each specification, from one fresh process of `python` (None: of this one's).

    Raises:
        TurnError: see `timed`.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        question, answer = Path(scratch, "specs.json"), Path(scratch, "answers.json")
        question.write_text(json.dumps(list(specs)))
        taken, _ = timed([str(python or sys.executable), "-m", f"bench.subjects.{subject}", str(question), str(answer)], threads)
        return json.loads(answer.read_text()), taken


def usable(python: Path) -> bool:
    """Whether the interpreter is there, and where `make` makes its environment, is done with it."""
    folder = python.parent.parent
    return python.exists() and (not folder.name.startswith(".venv-") or (folder / "ready").exists())


def trl_python(path: Path) -> Path:
    """The interpreter, where it is there. Raises SystemExit where it is not."""
    if not usable(path):
        raise SystemExit(f"{path} is absent: `make .venv-trl/ready`, or name by --trl-python an interpreter with torch and trl==1.16.0.")
    return path.absolute()
