"""Runs of one process or several, from the outside: started, killed, waited for; and what must be the same of two of them.

Every process is forked from one that has imported everything.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fcntl import F_SETPIPE_SZ, fcntl
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from burnish.distributed.shards import read
from tests.distributed.processes import free_port
from tests.torture.process import ANY, END, HIT, Fault, Task, run

TIMED = ("tokens_per_second", "runtime")
"""Ends of the names of what a clock decides."""
DEADLINE = 180.0
"""Seconds, of a run; those left over after one of them was killed have LEAVING."""
LEAVING = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
SUPERVISOR = -1
"""As the rank of a fault: whoever started the processes is killed."""


def server() -> ForkServerContext:
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # a killed process leaves tqdm's semaphore to it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.warm"])
    return context


@dataclass(frozen=True, kw_only=True)
class Ended:
    codes: tuple[int, ...]
    """Of each rank. Negative: killed by that signal."""
    output: str
    """Of all ranks, one after another."""
    hit: bool
    """The fault came before the run's end."""
    counts: tuple[Mapping[str, int], ...]
    """Of each rank, events of each phase; none of one that did not end by itself."""
    seconds: tuple[float, ...]
    """Of each rank, processor time; 0 of one that did not end by itself."""

    @property
    def well(self) -> bool:
        return not any(self.codes)


class Started:
    """A run under way. `folder` gets cache/ and run/."""

    def __init__(
        self,
        context: ForkServerContext,
        arguments: Sequence[str],
        folder: Path,
        ranks: int = 1,
        fault: Fault | None = None,
        clock: float = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.fault, self._hit = fault, False
        self._pipes, self.processes = list[Any](), list[ForkServerProcess]()
        listening: Any = None
        self._supervisor: Any = None
        if ranks > 1:
            listening, self._supervisor = context.Pipe(duplex=False)
        port = free_port() if ranks > 1 else 0
        for rank in range(ranks):
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
            facts = {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"} if ranks > 1 else {}
            own = fault if fault and fault.rank == rank and fault.moment.phase != ANY else None
            task = Task(arguments=list(arguments), folder=folder, fault=own, environment=facts, clock=clock)
            ours, theirs = context.Pipe(duplex=False)
            fcntl(ours.fileno(), F_SETPIPE_SZ, 1 << 20)  # all that it will ever say, so that nobody has to read meanwhile
            process = context.Process(target=run, args=(task, theirs, listening))
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        if listening is not None:
            listening.close()

    def end(self, within: float = DEADLINE) -> Ended:
        """Waits for all ranks. Raises AssertionError where they have not ended in time; none is left behind."""
        deadline, died = time.monotonic() + within, False
        living = list(self.processes)
        try:
            while living:
                living[0].join(0.005 if self._due else 0.05)
                self._bring()
                living = [one for one in living if one.exitcode is None]
                if not died and any(one.exitcode for one in self.processes):
                    died, deadline = True, min(deadline, time.monotonic() + LEAVING)
                assert time.monotonic() < deadline, f"{len(living)} of the processes have not ended: {self._said()}"
        finally:
            for one in living:
                one.kill()
                one.join()
        texts = [text.split(END) for text in self._said()]
        facts: list[dict[str, Any]] = [json.loads(text[1]) if len(text) > 1 else {"counts": {}, "seconds": 0.0} for text in texts]
        output = "".join(text[0] for text in texts)
        return Ended(
            codes=tuple(one.exitcode or 0 for one in self.processes),
            output=output.replace(HIT, ""),
            hit=self._hit or HIT in output,
            counts=tuple(one["counts"] for one in facts),
            seconds=tuple(one["seconds"] for one in facts),
        )

    @property
    def paused(self) -> bool:
        """By its fault."""
        return _stat(self.processes[0].pid)[0] == "T"

    def wait_for_pause(self) -> bool:
        """False where the run has ended before."""
        while not self.paused:
            self.processes[0].join(0.01)
            if self.processes[0].exitcode is not None:
                return False
        return True

    def go_on(self) -> None:
        os.kill(self.processes[0].pid or 0, signal.SIGCONT)

    @property
    def _due(self) -> bool:
        return self.fault is not None and self.fault.moment.phase == ANY and not self._hit

    def _bring(self) -> None:
        """The fault that comes from outside, when it is time."""
        if not (self._due and self.fault):
            return
        one = self.processes[max(0, self.fault.rank)]
        if one.exitcode is not None or _seconds(one.pid) < self.fault.moment.number:
            return
        self._hit = True
        if self.fault.rank == SUPERVISOR:
            self._supervisor.close()
        else:
            os.kill(one.pid or 0, signal.SIGKILL if self.fault.kind == "kill -9" else signal.SIGTERM)

    def _said(self) -> list[str]:
        texts = []
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
            parts = []
            try:
                while part := os.read(pipe.fileno(), 1 << 20):
                    parts.append(part)
            except BlockingIOError:
                pass
            texts.append(b"".join(parts).decode(errors="replace"))
        return texts


def _stat(pid: int | None) -> list[str]:
    """The fields after the name; those of a process that is gone are all "0"."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ["0"] * 52


def _seconds(pid: int | None) -> float:
    """Processor time."""
    return sum(map(int, _stat(pid)[11:13])) / TICKS


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock decides."""
    return [untimed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.endswith(TIMED) and not name.startswith("time/")}


def steps(run: Path) -> list[int]:
    """Of the checkpoints, oldest first."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in run.iterdir())
    return sorted(int(name[1]) for name in names if name)


def newest(run: Path) -> int:
    return max(steps(run), default=0) if run.exists() else 0


def result(run: Path) -> dict[str, Any]:
    """Everything that must be the same, to the bit, however often the run was killed: files as bytes, records without clocks."""
    last = run / f"checkpoint-{steps(run)[-1]}"
    files = {path.name: path.read_bytes() for path in (*run.glob("*.safetensors"), *last.glob("*.safetensors"), *run.glob("samples/*"))}
    found: dict[str, Any] = {"last": last.name, "lines": lines(run), **files}
    for path in last.glob("*.pt"):
        found[path.stem] = flat(torch.load(path, weights_only=True))
    found["moments"] = flat(read(last / "optimizer", lambda _, size, dtype: torch.empty(size, dtype=dtype)))
    loop = json.loads((last / "loop_state.json").read_text())
    state = json.loads((last / "trainer_state.json").read_text())
    state["log_history"] = [untimed(entry) for entry in state["log_history"]]
    state.pop("best_model_checkpoint")  # an absolute path
    for name in ("metrics_offset", "metrics_sha256"):  # of bytes among which are clocks' figures
        loop.pop(name)
    loop["meters"] = [untimed(meter) for meter in loop["meters"]]
    return found | {"loop": loop, "state": state}


def flat(value: Any) -> Any:
    """Tensors as their dtype, shape and bytes, which `==` compares to the bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, list | tuple) else value


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for ours, theirs in zip(found["lines"], wanted["lines"], strict=False):
        assert ours == theirs, f"a line of metrics.jsonl is {ours} and not {theirs}"
    assert len(found["lines"]) == len(wanted["lines"]), f"{len(found['lines'])} lines in metrics.jsonl, not {len(wanted['lines'])}"
    different = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
    assert not different, f"not the same to the bit: {', '.join(different)}"
