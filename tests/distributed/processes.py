"""Processes that tests start, each with a hard timeout, none left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tiny import chats, save_tiny_model, write_rows

ROOT = Path(__file__).parents[2]
FAULTS = Path(__file__).parent / "faults"
TIMEOUT = 300
"""Seconds, of a whole process; starting torch takes several on a busy machine."""


@dataclass(frozen=True)
class Ended:
    status: int
    output: str

    @property
    def last(self) -> str:
        """The last lines, as they are on a screen."""
        return "\n".join(self.output.splitlines()[-25:])


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> Ended:
        self.process.wait(TIMEOUT)
        return Ended(self.process.returncode, self.log.read_text())

    def wait_for(self, path: Path) -> None:
        """Until the process has written something into it."""
        deadline = time.monotonic() + TIMEOUT
        while not (path.exists() and path.stat().st_size):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)


@contextmanager
def started(command: Sequence[str], log: Path, **environment: str) -> Iterator[Started]:
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **environment}
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=shared, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield Started(process, log)
    finally:
        for pid in (process.pid, *children(process.pid)) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        process.wait()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_ranks(what: str, folder: Path, count: int = 2, expected: int = 2) -> list[Ended]:
    """`tests.distributed.ranks`, so many of them, and nobody to look after them."""
    shared = {"WORLD_SIZE": str(expected), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "tests.distributed.ranks", what, str(folder)]
    with ExitStack() as stack:
        own = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count))
        ranks = [stack.enter_context(started(command, folder / f"{one['RANK']}.log", **shared, **one)) for one in own]
        return [rank.end() for rank in ranks]


def make_task(folder: Path) -> Path:
    """A tiny model and rows, in `folder`."""
    save_tiny_model(folder / "model", attention_dropout=0.1)
    write_rows(folder / "rows.jsonl", chats(40))
    return folder


def sft(task: Path, run: Path, *more: str, **options: object) -> list[str]:
    """The words after `burnish`."""
    options = {
        "model_name_or_path": task / "model", "dataset_name": task / "rows.jsonl", "output_dir": run, "batch_size": 5, "max_steps": 12,
        "max_tokens_per_microbatch": 64, "compute_dtype": "float32", "learning_rate": 2e-3, "logging_steps": 5,
        **options,
    }  # fmt: skip
    return ["sft", *(word for name, value in options.items() for word in (f"--{name}", str(value))), "--assistant_only_loss", *more]


def faults(fault: str, told: Path) -> dict[str, str]:
    """In the environment of `burnish`: rank 1 has this fault in step 4, and writes `told` right before."""
    path = os.pathsep.join(filter(None, (str(FAULTS), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "BURNISH_FAULT": fault, "BURNISH_FAULT_TOLD": str(told)}
