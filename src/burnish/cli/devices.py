"""`--devices N`: the same command in N processes of this machine, under the eyes of this one, which never imports torch.

torchrun starts processes as well; but it takes seconds to do so, gives them 30 seconds to save when it is told to end, whatever a
checkpoint takes, and shows a page of its own before the cause of a failure.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from burnish.config.base import Config, config, option
from burnish.config.processes import Processes, processes
from burnish.config.values import ConfigError

SUPERVISOR = "BURNISH_SUPERVISOR"
"""In the environment of the processes started here: a pipe that ends with this process. `distributed.watch` listens to it."""
BYSTANDER = 83
"""Their exit status when they leave because another failed; `distributed.watch` has the same."""
GRACE = 10.0
"""Seconds to write their stacks and leave, after one of them has failed."""


@config
class DevicesConfig(Config):
    """How many processes train."""

    devices: int | Literal["auto"] = option(
        1, "Processes to start on this machine, one for each GPU; auto: as many as it has GPUs.", at_least=1
    )


def on_devices(words: Sequence[str], read: Callable[[], Any], trainer: Callable[[], type[Any]]) -> int:
    """Trains as `burnish *words` says: in this process, or in as many as --devices says. The exit status.

    `read` gives the command line's configurations: `devices`, `model`, `data` and `args`. Checks are made once on each machine,
    before torch is imported, and what they refuse is said once.
    """
    here = processes()
    started = SUPERVISOR in os.environ
    with _said_once(here):
        said = read()
        devices = 1 if started else _count(said.devices.devices, here)
        if devices > 1:
            with _environment(WORLD_SIZE=str(devices)):  # options per device add up to another batch size
                said = read()
        if not started:
            from burnish.cli.early import early_checks

            early_checks(said.model, said.data, said.args)
    if devices > 1:
        return Supervisor([sys.executable, "-m", "burnish", *words], devices).run()
    from burnish.cli.train import run_training

    return run_training(trainer(), said.model, said.data, said.args)


def _count(devices: int | str, here: Processes) -> int:
    if devices != 1 and here.world_size > 1:
        raise ConfigError(
            f"devices={devices!r} starts processes, and the environment says that this is one of {here.world_size} already; leave one out."
        )
    if devices != "auto":
        return int(devices)
    import torch

    if not (count := torch.cuda.device_count()):
        raise ConfigError("devices='auto' finds no GPU; say how many processes are to train, or leave it out for one.")
    return count


@contextmanager
def _said_once(here: Processes) -> Iterator[None]:
    """All processes of a machine refuse alike; the first one says why."""
    try:
        yield
    except (ValueError, RuntimeError):
        if here.local_rank:
            raise SystemExit(2) from None
        raise


@contextmanager
def _environment(**more: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= more
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


class Supervisor:
    """Starts the processes, passes signals on, and ends all when one has failed.

    The first SIGTERM or SIGINT is theirs: they save and leave. The second one kills them.
    """

    def __init__(self, command: Sequence[str], count: int) -> None:
        self.command, self.count = command, count
        self.signals: list[int] = []
        self.ended: dict[int, int] = {}
        """Rank → exit status, in the order in which they ended; negative: killed by that signal."""

    def run(self) -> int:
        with tempfile.TemporaryDirectory(prefix="burnish-") as folder, _port() as port, self._handlers():
            ours, theirs = os.pipe()
            workers = [self._start(rank, port, Path(folder), ours) for rank in range(self.count)]
            os.close(ours)
            try:
                self._wait(workers)
            finally:
                for worker in workers:
                    worker.kill()
                    worker.wait()
                os.close(theirs)
            return self._verdict(Path(folder))

    def _start(self, rank: int, port: int, folder: Path, pipe: int) -> subprocess.Popen[bytes]:
        facts = Processes(rank=rank, world_size=self.count, local_rank=rank, local_world_size=self.count, master_port=port)
        more = {SUPERVISOR: str(pipe), "TORCHELASTIC_ERROR_FILE": str(folder / f"{rank}.json")}
        threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // self.count))}
        return subprocess.Popen(
            self.command,
            env=threads | os.environ | facts.environment | more,
            stdin=subprocess.DEVNULL,
            pass_fds=[pipe],
            start_new_session=True,  # Ctrl-C reaches them through this process, once
        )

    @contextmanager
    def _handlers(self) -> Iterator[None]:
        """What is ignored, as in the background of a script, stays ignored."""
        heard = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) is not signal.SIG_IGN]
        before = {one: signal.signal(one, lambda number, frame: self.signals.append(number)) for one in heard}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _wait(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        passed_on, deadline = 0, float("inf")
        while len(self.ended) < self.count and time.monotonic() < deadline and len(self.signals) < 2:
            for worker in workers if len(self.signals) > passed_on else ():
                worker.send_signal(self.signals[0])
            passed_on = len(self.signals)
            gone = {rank: worker.poll() for rank, worker in enumerate(workers) if rank not in self.ended}
            new = {rank: status for rank, status in gone.items() if status is not None}
            self.ended |= dict(sorted(new.items(), key=lambda one: one[1]))  # of two at once, one that was killed comes first
            if any(new.values()):
                deadline = min(deadline, time.monotonic() + GRACE)
            time.sleep(0.05)

    def _verdict(self, folder: Path) -> int:
        """The exit status of the cause, and its words last of all."""
        if self.signals and not any(status > 0 and status not in (BYSTANDER, 128 + self.signals[0]) for status in self.ended.values()):
            return 128 + self.signals[0]
        own = {rank: status for rank, status in self.ended.items() if status not in (0, BYSTANDER)}
        if not own:
            return max(self.ended.values(), default=BYSTANDER)
        rank, status = next(iter(own.items()))
        if status < 0:
            name, hint = signal.Signals(-status).name, ": out of memory?" if status == -signal.SIGKILL else ""
            print(f"error: rank {rank} was killed by signal {-status} ({name}){hint}", file=sys.stderr)
            return 128 - status
        report = folder / f"{rank}.json"
        if status != 2 and report.exists():  # with 2, it has said it in one sentence
            print(f"error: rank {rank} failed: {json.loads(report.read_text())['message']['message']}", file=sys.stderr)
        return status


@contextmanager
def _port() -> Iterator[int]:
    """Free, and kept so until rank 0 listens to it, which it may while this socket does not."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("", 0))
        yield one.getsockname()[1]
