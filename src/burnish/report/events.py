"""events.jsonl: what happened to a run, one JSON object per line. Appended to and never cut, over all its starts.

Every line has `number` (counted on over restarts; when a clock goes backwards, the order is still in the file), `time` (UTC),
`event`, `step` (optimizer steps done) and `pid`. The events:

- start: `command`, `world_size`, `host`, `versions`. The run's directory is not held yet.
- refusal: `why` the run was not begun.
- skip: a damaged `checkpoint` that is passed over, and `why`.
- resume: the `checkpoint` that the run goes on from.
- save: `checkpoint`, the `seconds` that training stood still, and `bytes`, null while it is being written in the background.
- signal: the `signal` that ended the run. failure: `why` it ended otherwise. A process that is killed writes neither.
- end: all steps are done.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that a refusal is recorded before torch is imported
    from burnish.distributed.launch import Launch
    from burnish.distributed.signals import Signals

EVENTS = "events.jsonl"
PACKAGES = ("burnish", "torch", "transformers", "datasets", "peft")
TAIL = 1 << 16
"""Bytes at the end of the file in which its last line is looked for at first."""


class Events:
    """Rank 0 writes them, but for a failure, which is told by the rank that has to say something about it.

    A run does not end because an event cannot be written, on a full disk say: `say` is told so, once.
    """

    def __init__(self, folder: Path, here: Launch, steps_done: Callable[[], int], say: Callable[[str], object]) -> None:
        self.path, self.here, self.steps_done, self._say = folder / EVENTS, here, steps_done, say
        self._told = self._broken = False
        self._writing = threading.Lock()
        if here.watch is not None:
            here.watch.on_failure = self._failed

    @contextmanager
    def of_run(self, signals: Signals) -> Iterator[None]:
        """From a start to its end, whichever it is."""
        self._told = False
        versions = dict(map(_version, PACKAGES))
        self.write("start", command=sys.argv, world_size=self.here.world_size, host=socket.gethostname(), versions=versions)
        try:
            yield
        except BaseException as error:
            if signals.stop is not None:
                self.write("signal", signal=signals.stop.name)
            elif self.here.watch is None:
                self._failed(f"{type(error).__name__}: {error}")
            raise
        self.write("end")

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Around what may refuse to begin, on all ranks alike."""
        try:
            yield
        except RuntimeError as error:
            self._told = True
            self.write("refusal", why=str(error))
            raise

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around what writes the checkpoint of the step, or sets off to write it."""
        begun = time.monotonic()
        yield
        seconds, folder = time.monotonic() - begun, self.path.parent / f"checkpoint-{self.steps_done()}"
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()] if self.here.main else []
        self.write("save", checkpoint=folder.name, seconds=round(seconds, 3), bytes=sum(sizes) or None)

    def write(self, event: str, **facts: Any) -> None:
        if self.here.main:
            self._append(event, facts)

    def _failed(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._append("failure", {"rank": self.here.rank, "why": why})

    def _append(self, event: str, facts: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing, open(self.path, "a+b", buffering=0) as file:
                append(file, {"event": event, "step": self.steps_done(), **facts})
        except OSError as error:
            if not self._broken:
                self._broken = True
                self._say(f"{self.path} cannot be written ({error.strerror}); the run goes on, and its events are not recorded.")


def record_refusal(folder: Path, why: str) -> None:
    """Where no `Events` is, because nothing was begun yet: in the folder of the run that is there, if one is and it can be written to."""
    with suppress(OSError), open(folder / EVENTS, "a+b", buffering=0) as file:
        append(file, {"event": "refusal", "step": 0, "command": sys.argv, "why": why})


def append(file: Any, facts: dict[str, Any]) -> None:
    """One line, in one write; after a line that was torn, when a process died or the disk was full, on a line of its own."""
    size = file.seek(0, os.SEEK_END)
    tail = b""
    while len(tail) < size and not _last_number(tail):
        file.seek(max(0, size - max(TAIL, 2 * len(tail))))
        tail = file.read(size)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"number": _last_number(tail) + 1, "time": now, "pid": os.getpid(), **facts}
    torn = b"\n" if tail and not tail.endswith(b"\n") else b""
    file.write(torn + json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events, in order; torn lines are left out."""
    return [event for line in path.read_bytes().split(b"\n") if (event := _parsed(line)) is not None]


def _last_number(tail: bytes) -> int:
    numbers = (event.get("number") for line in reversed(tail.split(b"\n")) if (event := _parsed(line)) is not None)
    return next((number for number in numbers if isinstance(number, int)), 0)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _version(package: str) -> tuple[str, str | None]:
    try:
        return package, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return package, None
