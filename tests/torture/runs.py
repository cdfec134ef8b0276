"""Trainings that are killed and started again, and what must be the same afterwards.

Each is a process of its own, forked from one that has imported everything, and runs `burnish` as its user would. It kills
itself (SIGKILL, which nothing can catch) right before the n-th event of a kind: a touch of a file or a forward pass.
Or it is killed from outside after so many seconds, which also hits what leaves no event: a write under way, a hash, a step.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

TIMED = ("tokens_per_second", "runtime")
"""Ends of the names of what a clock decides."""
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


KINDS = {
    "start": r"open run/(resolved|environment|data|metrics)|os.mkdir run$",
    "cache": r"\w+(\.\w+)? cache/",
    "train": r"forward train",
    "evaluation": r"forward evaluation",
    "save": r"\w+(\.\w+)? run/tmp-checkpoint",
    "publish": r"os.(rename|rmdir) run/",
    "find": r"open run/checkpoint-",
    "export": r"open run/(config|generation_config|chat_template|tokenizer)",
}
"""Moments by the events they are made of."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The `number`-th event of a kind; of kind "clock", so many seconds."""

    kind: str
    number: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    """Negative: killed by that signal."""
    output: str
    counts: Mapping[str, int]
    """Events of each kind; none of a process that was killed."""
    seconds: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def server() -> ForkServerContext:
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # a killed process leaves tqdm's semaphore to it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.warm"])
    return context


def start(context: ForkServerContext, arguments: Sequence[str], folder: Path, death: Moment | None = None) -> Ended:
    """Runs `burnish *arguments` to its end, or to `death`. What it touches lies below `folder`, in cache/ and run/."""
    folder.mkdir(parents=True, exist_ok=True)
    output, counts, begun = folder / "output.txt", folder / "counts.json", time.monotonic()
    output.unlink(missing_ok=True)
    clock = death.number if death and death.kind == "clock" else None
    process = context.Process(target=_child, args=(list(arguments), folder, None if clock else death))
    process.start()
    process.join(clock)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode is not None
    return Ended(
        code=process.exitcode,
        output=output.read_text() if output.exists() else "",
        counts=json.loads(counts.read_text()) if process.exitcode == 0 else {},
        seconds=time.monotonic() - begun,
    )


def _child(arguments: list[str], folder: Path, death: Moment | None) -> None:
    from burnish.cli.main import main
    from burnish.models.policy import Policy

    descriptor = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ |= {"BURNISH_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    torch.set_num_threads(1)
    counts = dict.fromkeys(KINDS, 0)

    def happens(event: str) -> None:
        for kind, pattern in KINDS.items():
            if re.match(pattern, event):
                counts[kind] += 1
                if death and (kind, counts[kind]) == (death.kind, death.number):
                    os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event in TOUCHES and isinstance(given[0], str | Path) and str(given[0]).startswith(f"{folder}/"):
            happens(f"{event} {Path(given[0]).relative_to(folder)}")

    plain = Policy.forward

    def forward(self: Policy, *given: Any) -> Any:
        happens("forward train" if self.training else "forward evaluation")
        return plain(self, *given)

    Policy.forward = forward  # type: ignore[method-assign]
    sys.addaudithook(hook)
    code = main(arguments)
    (folder / "counts.json").write_text(json.dumps(counts))
    os._exit(code)


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock decides."""
    return [untimed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.endswith(TIMED)}


def steps(run: Path) -> list[int]:
    """Of the checkpoints, oldest first."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in run.iterdir())
    return sorted(int(name[1]) for name in names if name)


def result(run: Path) -> dict[str, Any]:
    """Everything that must be the same, to the bit, however often the run was killed: files as bytes, records without clocks."""
    last = run / f"checkpoint-{steps(run)[-1]}"
    files = {path.name: path.read_bytes() for path in (*run.glob("*.safetensors"), *last.glob("*.safetensors"))}
    found: dict[str, Any] = {"last": last.name, "lines": lines(run), **files}
    for name in ("optimizer", "scheduler", "random-0"):
        found[name] = flat(torch.load(last / f"{name}.pt", weights_only=True))
    loop = json.loads((last / "loop_state.json").read_text())
    state = json.loads((last / "trainer_state.json").read_text())
    state["log_history"] = [untimed(entry) for entry in state["log_history"]]
    state.pop("best_model_checkpoint")  # an absolute path
    loop.pop("metrics_offset")  # bytes, of which clocks' figures take more or fewer
    return found | {"loop": loop, "state": state}


def flat(value: Any) -> Any:
    """Tensors as their dtype, shape and bytes, which `==` compares to the bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class Death:
    moment: Moment
    series: int
    before: int
    """Step of the newest checkpoint when the process that died was started; 0 for none."""
    after: int
    """When it was dead."""


def torture(
    context: ForkServerContext, arguments: Callable[[Path], Sequence[str]], folder: Path, *, kills: int, seed: int, together: int = 3
) -> Iterator[Death]:
    """Kills runs of `burnish *arguments(run)` so many times in all, at moments of all kinds, and yields each death.

    A run dies up to `together` times, each time the same command is given again, and in the end it is compared with a run
    that was left alone. Raises AssertionError where one is not continued from its newest checkpoint, or is not the same.
    """
    draw, died = random.Random(seed), 0
    alone = start(context, arguments(folder / "alone" / "run"), folder / "alone")
    assert alone.code == 0, alone.output
    wanted = result(folder / "alone" / "run")
    total = steps(folder / "alone" / "run")[-1]
    first, later = cycle([kind for kind in (*KINDS, "clock") if kind != "find"]), cycle(["find", "save", "publish", "clock", "train"])
    for series in count():
        here, run = folder / str(series), folder / str(series) / "run"
        for attempt in range(together + 1):
            before, moment = newest(run), None
            if attempt < together and died < kills:
                kind, left = next(later if attempt else first), 1 - before / total
                moment = moment_of(kind, left * (alone.seconds if kind == "clock" else alone.counts[kind]), draw)
            ended = start(context, arguments(run), here, moment)
            check_continued(ended, run, before)
            if not ended.killed:
                break
            assert moment is not None
            died += 1
            yield Death(moment=moment, series=series, before=before, after=newest(run))
        assert ended.code == 0, ended.output
        check_same(result(run), wanted)
        debris = [path.name for path in run.iterdir() if path.name.startswith(("tmp-", "replaced-"))]
        assert not debris, f"series {series} left {debris}"
        shutil.rmtree(here)
        if died >= kills:
            return


def moment_of(kind: str, most: float, draw: random.Random) -> Moment:
    return Moment(kind=kind, number=draw.uniform(0.01, most) if kind == "clock" else draw.randint(1, max(1, round(most))))


def newest(run: Path) -> int:
    return max(steps(run), default=0) if run.exists() else 0


def check_continued(ended: Ended, run: Path, before: int) -> None:
    """Every checkpoint that is seen is whole: a run goes on from the newest, or anew where there is none."""
    continued = re.search(r"Continuing from (\S+), step (\d+) of", ended.output)
    if continued:
        assert (continued[1], int(continued[2])) == (f"{run}/checkpoint-{before}", before), ended.output
    assert "Skipped" not in ended.output, ended.output
    assert ended.killed or bool(continued) == bool(before), ended.output


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for ours, theirs in zip(found["lines"], wanted["lines"], strict=False):
        assert ours == theirs, f"a line of metrics.jsonl is {ours} and not {theirs}"
    assert len(found["lines"]) == len(wanted["lines"]), f"{len(found['lines'])} lines in metrics.jsonl, not {len(wanted['lines'])}"
    different = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
    assert not different, f"not the same to the bit: {', '.join(different)}"
