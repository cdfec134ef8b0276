"""What is done to runs, and what must come of it.

After every fault the same command is given until it ends. Each function below does so for one run or more, yields a `Trial` for
every moment that it tried, and raises AssertionError where something is lost or wrong.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random

from burnish.checkpoint.files import CheckpointError, find_checkpoint
from burnish.report.events import read_events
from tests.torture.process import ANY, Fault, Moment
from tests.torture.runs import SUPERVISOR, Ended, Started, check_same, newest, result, steps

TOGETHER = 3
"""Times that a run is killed before it is left alone."""
ONCE = ("tokenise", "first step")
"""Phases of the first start only: later the rows are in the cache."""
ANEW = ("start", "tokenise", "find", "export")
"""Phases that are as long when less is left to train."""
ADVICE = ("make room", "free some space", "raise the limit", "name another", "see who may write")
"""One of these is in what is said where a file cannot be written."""
FILES = {
    "weights": "model.safetensors",
    "optimizer": "optimizer/__0_0.distcp",
    "random state": "random-0.pt",
    "loop's state": "loop_state.json",
    "manifest": "manifest.json",
}
"""Of a checkpoint, those that are damaged."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One moment that was tried."""

    fault: str
    phase: str
    ranks: int
    refused: bool = False
    """In one sentence."""
    resumed: bool = False
    """From a checkpoint; else there was none, and it began anew."""
    wrong: str = ""
    """What was lost, or is not the same."""


class Subject:
    """A way of training, and a run of it that was left alone."""

    def __init__(self, context: ForkServerContext, words: Sequence[str], folder: Path, ranks: int = 1) -> None:
        self.context, self.words, self.folder, self.ranks = context, words, folder, ranks
        self.background = "--save_async" in words
        self._series = 0
        alone = folder / "alone"
        self.alone = self.start(alone)
        assert self.alone.well, self.alone.output
        self.wanted, self.total = result(alone / "run"), newest(alone / "run")

    @cached_property
    def again(self) -> Ended:
        """The same command given once more, when the run is over: it looks at the newest checkpoint and writes the model anew."""
        ended = self.start(self.folder / "alone")
        assert ended.well, ended.output
        assert "is finished, at step" in ended.output, ended.output
        self.check(self.folder / "alone")
        return ended

    def launch(self, here: Path, fault: Fault | None = None, clock: float = 0) -> Started:
        return Started(self.context, [*self.words, "--output_dir", str(here / "run")], here, self.ranks, fault, clock)

    def start(self, here: Path, fault: Fault | None = None, clock: float = 0) -> Ended:
        """Runs to its end, or to the fault's. Every checkpoint that is seen is whole, and none that was there is lost."""
        before = newest(here / "run")
        ended = self.launch(here, fault, clock).end()
        assert newest(here / "run") >= before, f"step {before} was saved, and is lost: {steps(here / 'run')}"
        return ended

    def new(self) -> Path:
        self._series += 1
        return self.folder / str(self._series)

    def fault(self, kind: str, phase: str, draw: Random, *, left: float = 1.0, rank: int = 0) -> Fault:
        """At a random moment of a phase, of a run of which so much is left."""
        of = max(0, rank)
        if phase == ANY:
            number: float = draw.uniform(0.02, max(0.05, left * self.alone.seconds[of]))
        else:
            counts = (self.again if phase == "find" else self.alone).counts[of]
            number = draw.randint(1, max(1, round(counts[phase] * left)))
        return Fault(kind=kind, moment=Moment(phase=phase, number=number), rank=rank)

    def phases(self, rank: int = 0) -> list[str]:
        """Those that this way of training has."""
        return [*(phase for phase, count in self.alone.counts[rank].items() if count or phase == "find"), ANY]

    def shown(self, phase: str) -> str:
        return f"{phase}, in the background" if self.background and phase in ("save", "publish", "rotate") else phase

    def check(self, here: Path, *, events: bool = True) -> None:
        """Bits, lines, checkpoints and events are those of the run that was left alone; nothing is left over."""
        run, alone = here / "run", self.folder / "alone" / "run"
        check_same(result(run), self.wanted)
        kept, wanted = steps(run), steps(alone)  # a signal's own checkpoint takes the place of an older one
        assert (len(kept) >= len(wanted), kept[-1]) == (True, wanted[-1]), f"checkpoints {kept} are left, and not {wanted}"
        check_whole(run)
        debris = [path.name for path in run.iterdir() if path.name.startswith(("tmp-", "replaced-"))]
        assert not debris, f"{debris} were left"
        if events:
            told = read_events(run / "events.jsonl")
            assert [one["number"] for one in told] == list(range(1, len(told) + 1)), f"events.jsonl counts {told}"
            assert told[-1]["event"] == "end", told[-1]

    def finish(self, here: Path, *, events: bool = True, clear: bool = True) -> bool:
        """Starts the run once more and leaves it alone; whether it went on from a checkpoint."""
        before = newest(here / "run")
        ended = self.start(here)
        assert ended.well, ended.output
        check_continued(ended, here / "run", before)
        self.check(here, events=events)
        if clear:
            shutil.rmtree(here)
        return bool(before)


def check_whole(run: Path) -> None:
    """Every checkpoint that is seen has all its files, with the hashes that they were written with."""
    for step in steps(run) if run.exists() else ():
        folder = run / f"checkpoint-{step}"
        assert (folder / "manifest.json").exists(), f"{folder} has no manifest"
        identity = json.loads((folder / "manifest.json").read_text())["identity"]
        try:
            find_checkpoint(run / "nowhere", identity, path=folder)
        except CheckpointError as error:
            raise AssertionError(str(error)) from error


def check_continued(ended: Ended, run: Path, before: int) -> None:
    """A run goes on from the newest checkpoint, or begins anew where there is none."""
    found = re.findall(r"Continuing from (\S+), step (\d+) of", ended.output)
    assert all(one == (f"{run}/checkpoint-{before}", str(before)) for one in found), ended.output
    assert "Skipped" not in ended.output, ended.output
    assert ended.hit or bool(found) == bool(before), ended.output


def check_refused(ended: Ended, *words: str) -> None:
    """Status 2, and one sentence that has one of `words`."""
    said = re.findall(r"^error: .*", ended.output, re.MULTILINE)
    assert {2} <= set(ended.codes) <= {2, 83}, f"status {ended.codes}: {ended.output}"
    assert len(said) == 1, ended.output
    assert "Traceback" not in ended.output, ended.output
    assert any(word in said[0] for word in words), said[0]


def kills(subject: Subject, draw: Random, moments: Sequence[tuple[str, int]], *, clock: bool = False) -> Iterator[Trial]:
    """kill -9 at one moment of each of `moments`: a phase, and which rank is killed. A run dies up to three times.

    A moment that a run did not live to see is tried again. `clock`: it goes back from start to start, and while they run.
    """
    waiting = [(phase, rank, 1.0) for phase, rank in moments]
    hours = 0.0
    while waiting:
        here, deaths = subject.new(), list[Trial]()
        for attempt in range(TOGETHER):
            before = newest(here / "run")
            due = next((one for one in waiting if _possible(one[0], attempt, before)), None)
            phase, rank, share = due or ("save", 0, 1.0)  # the others wait for a checkpoint
            hours += clock
            left = share if phase in ANEW else share * (1 - before / subject.total)
            fault = subject.fault("kill -9", phase, draw, left=left, rank=rank)
            ended = subject.start(here, fault, hours)
            check_continued(ended, here / "run", before)
            check_whole(here / "run")
            if deaths:
                deaths[-1] = _then(deaths[-1], before)
            if not ended.hit:
                assert ended.well, ended.output
                if due:
                    waiting[waiting.index(due)] = (phase, rank, share / 2)
                break
            assert ended.codes[max(0, rank)] == (83 if rank == SUPERVISOR else -signal.SIGKILL), ended.output
            if due:
                waiting.remove(due)
            deaths.append(Trial(fault=_named(rank, subject.ranks, clock), phase=subject.shown(phase), ranks=subject.ranks))
            if not waiting:
                break
        resumed = subject.finish(here)
        if deaths:
            deaths[-1] = _then(deaths[-1], resumed)
        yield from deaths


def _possible(phase: str, attempt: int, before: int) -> bool:
    return before > 0 if phase == "find" else attempt == 0 or phase not in ONCE


def _then(trial: Trial, checkpoint: int | bool) -> Trial:
    return replace(trial, resumed=bool(checkpoint))


def _named(rank: int, ranks: int, clock: bool) -> str:
    who = "" if ranks == 1 else f", supervisor of {ranks} ranks" if rank == SUPERVISOR else f", rank {rank} of {ranks}"
    return f"kill -9{who}" + (", the clock goes back" if clock else "")


def sigterm(subject: Subject, draw: Random, phase: str, rank: int = 0) -> Iterator[Trial]:
    """It saves and leaves with status 143 where it trains, and leaves at once before and after; or comes too late."""
    here, ended = _faulted(subject, draw, "SIGTERM", phase, rank)
    code = ended.codes[rank]
    assert code in (0, 143, -signal.SIGTERM), ended.output
    assert "Traceback" not in ended.output, ended.output
    if code == 143:
        stopped = re.findall(r"Stopped by SIGTERM after step (\d+) of", ended.output)
        assert stopped == [str(newest(here / "run"))], ended.output
    yield Trial(fault="SIGTERM", phase=subject.shown(phase), ranks=subject.ranks, resumed=subject.finish(here))


def no_room(subject: Subject, draw: Random, kind: str, phase: str, rank: int = 0) -> Iterator[Trial]:
    """From a moment on no file can grow ("disk full") or be opened for writing ("read-only"), until the run has ended."""
    here, ended = _faulted(subject, draw, kind, phase, rank)
    for path in (here, *here.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if not ended.well:
        check_refused(ended, *ADVICE)
    shown = subject.shown(phase)
    yield Trial(fault=kind, phase=shown, ranks=subject.ranks, refused=not ended.well, resumed=subject.finish(here))


def _faulted(subject: Subject, draw: Random, kind: str, phase: str, rank: int) -> tuple[Path, Ended]:
    """A new run, or where it is to be found one that was killed, that has had its fault."""
    left = 1.0
    while True:
        here = _copied(subject) if phase == "find" else subject.new()
        ended = subject.start(here, subject.fault(kind, phase, draw, left=left, rank=rank))
        if ended.hit:
            return here, ended
        assert ended.well, ended.output
        shutil.rmtree(here)
        left /= 2


def half_done(subject: Subject) -> Path:
    """Killed when there were two checkpoints, at least."""
    here = subject.folder / "half"
    if not here.exists():
        third = subject.alone.counts[0]["publish"] * 3 // 4
        ended = subject.start(here, Fault(kind="kill -9", moment=Moment(phase="publish", number=third)))
        assert (ended.hit, len(steps(here / "run")) >= 2) == (True, True), ended.output
    return here


def truncate(path: Path, draw: Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def flip(path: Path, draw: Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def delete(path: Path, draw: Random) -> None:
    path.unlink()


DAMAGES: dict[str, Callable[[Path, Random], None]] = {"truncated": truncate, "a bit flipped": flip, "deleted": delete}


def damaged_checkpoint(subject: Subject, draw: Random, damage: str, file: str) -> Iterator[Trial]:
    """The newest one is passed over, with its name and the reason."""
    here = _copied(subject)
    damaged = here / "run" / f"checkpoint-{newest(here / 'run')}"
    DAMAGES[damage](damaged / FILES[file], draw)
    earlier = steps(here / "run")[-2]
    ended = subject.start(here)
    assert ended.well, ended.output
    assert f"Skipped {damaged.name}: " in ended.output, ended.output
    assert f"Continuing from {here}/run/checkpoint-{earlier}, step {earlier} of" in ended.output, ended.output
    subject.check(here)
    shutil.rmtree(here)
    yield Trial(fault=f"file {damage}", phase=f"checkpoint: {file}", ranks=subject.ranks, resumed=True)


def damaged_cache(subject: Subject, draw: Random, damage: str, file: str) -> Iterator[Trial]:
    """The tokenised rows are made anew, whether the run has begun or not."""
    here = _copied(subject)
    path = draw.choice(sorted(here.glob(f"cache/**/{file}")))
    DAMAGES[damage](path, draw)
    if begins := draw.random() < 0.5:
        shutil.rmtree(here / "run")
    yield Trial(fault=f"file {damage}", phase=f"cache: {file}", ranks=subject.ranks, resumed=subject.finish(here) and not begins)


def damaged_metrics(subject: Subject, draw: Random, damage: str) -> Iterator[Trial]:
    """Lines that a checkpoint counts on are missing, or are others: refused, until they are put back."""
    here = _copied(subject)
    path, last = here / "run" / "metrics.jsonl", here / "run" / f"checkpoint-{newest(here / 'run')}"
    content, size = path.read_bytes(), json.loads((last / "loop_state.json").read_text())["metrics_offset"]
    path.write_bytes(content[:size])  # later lines are taken back in any case
    DAMAGES[damage](path, draw)
    check_refused(subject.start(here), "metrics.jsonl")
    path.write_bytes(content)
    resumed = subject.finish(here)
    yield Trial(fault=f"file {damage}", phase="metrics.jsonl", ranks=subject.ranks, refused=True, resumed=resumed)


def damaged_events(subject: Subject, draw: Random, damage: str) -> Iterator[Trial]:
    """A diary that no run depends on: what can be read of it stays, and what happens next is on lines of its own."""
    here = _copied(subject)
    path = here / "run" / "events.jsonl"
    DAMAGES[damage](path, draw)
    before = read_events(path) if path.exists() else []
    resumed = subject.finish(here, events=False, clear=False)
    told = read_events(path)
    assert told[: len(before)] == before, f"{before} became {told}"
    assert (told[len(before)]["event"], told[-1]["event"]) == ("start", "end"), told
    shutil.rmtree(here)
    yield Trial(fault=f"file {damage}", phase="events.jsonl", ranks=subject.ranks, resumed=resumed)


def _copied(subject: Subject) -> Path:
    here = subject.new()
    shutil.copytree(half_done(subject), here, symlinks=True)
    return here


def twice(subject: Subject, draw: Random, phase: str) -> Iterator[Trial]:
    """A second run in the folder of one that is paused: refused in a sentence, and the first one ends as if alone."""
    here = _copied(subject) if phase == "find" else subject.new()
    first = subject.launch(here, subject.fault("pause", phase, draw))
    assert first.wait_for_pause(), first.end().output
    try:
        check_refused(subject.start(here), "Another process trains into")
    finally:
        first.go_on()
        ended = first.end()
    assert ended.well, ended.output
    subject.check(here, events=False)
    shutil.rmtree(here)
    yield Trial(fault="second run in the folder", phase=subject.shown(phase), ranks=subject.ranks, refused=True, resumed=True)


def full_disk(subject: Subject, draw: Random) -> Iterator[Trial]:
    """A file system that is full at some moment, until it has grown. Nothing where this process may not mount one."""
    here = subject.new()
    here.mkdir()
    if not _mount("-t", "tmpfs", "-o", f"size={draw.randrange(16_384, 1_000_000)}", "tmpfs", str(here)):
        return
    try:
        ended = subject.start(here)
        if not ended.well:
            check_refused(ended, *ADVICE)
        assert _mount("-o", f"remount,size={1 << 26}", str(here))
        resumed = subject.finish(here, clear=False)
    finally:
        subprocess.run(["umount", "--lazy", str(here)], check=True)
    yield Trial(fault="disk full", phase=ANY, ranks=subject.ranks, refused=not ended.well, resumed=resumed)


def _mount(*words: str) -> bool:
    return os.geteuid() == 0 and subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
