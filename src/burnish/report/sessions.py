"""How a run went, by its events: each of its starts, how it ended and how long it took. `report/events.py` says what events are."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from burnish.report.events import EVENTS

ENDINGS = ("end", "failure", "signal")
SLACK_S = 10
"""Seconds by which the start of a process may seem later than what it wrote, as clocks are read in different ways."""
Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A start that was not refused, and all that happened until the next one. Whatever process says that it failed: ranks have each
    their own, and in containers all have the same number."""

    at: int
    """Where its start is among all events."""
    events: tuple[Event, ...]
    """Its start first; nothing of those that were refused meanwhile."""

    @property
    def start(self) -> Event:
        return self.events[0]

    @property
    def end(self) -> Event | None:
        """What ended it. None: it goes on, or was killed."""
        return next((event for event in self.events if event.get("event") in ENDINGS), None)

    def has(self, kind: str) -> bool:
        return any(event.get("event") == kind for event in self.events)


def sessions(events: Sequence[Event]) -> Iterator[Session]:
    """In order.

    Worked example: start of process 1, start of 2, refusal of 2, failure of 3, start of 4 are two: 1 failed, and 4 has no end yet.
    """
    starts = [i for i, event in enumerate(events) if event.get("event") == "start" and not _refused(events, i)]
    for at, end in pairwise([*starts, len(events)]):
        yield Session(at=at, events=(events[at], *(one for one in events[at + 1 : end] if one.get("event") not in ("start", "refusal"))))


def _refused(events: Sequence[Event], at: int) -> bool:
    """A start is refused before its process writes anything else."""
    following = (event.get("event") for event in events[at + 1 :] if event.get("pid") == events[at].get("pid"))
    return next(following, None) == "refusal"


def since_anew(events: Sequence[Event]) -> list[Event]:
    """The events of the run that is there: what was in its folder before it was begun anew is of another one, and left out.

    A start without a resume is a beginning, unless it came to nothing: it was followed by another and had saved nothing that this could
    go on from, or it failed before its first step.
    """
    found = list(sessions(events))
    for one in reversed(found):
        ended = one.end
        under_way = one is found[-1] and (ended is None or ended.get("step") != 0)
        if not one.has("resume") and (one.has("save") or under_way):
            return list(events[one.at :])
    return list(events)


def status(folder: Path, events: Sequence[Event]) -> dict[str, str]:
    """`state` (finished, running, failed, stopped, killed, refused or unknown) and a sentence, `said`, about it."""
    last = next(reversed(list(sessions(events))), None)
    if last is None:
        for event in reversed(events):
            if state := {"refusal": "refused", "failure": "failed"}.get(str(event.get("event"))):
                return {"state": state, "said": str(event.get("why"))}
        return {"state": "unknown", "said": "It does not say how it went."}
    start, end = last.start, last.end
    if end is None and _alive(start):
        return {"state": "running", "said": f"It is going on, as process {start.get('pid')}."}
    if end is None and start.get("host") != socket.gethostname() and time.time() - _touched(folder) < 600:
        return {"state": "running", "said": f"It seems to be going on, on {start.get('host')}: its files are minutes old."}
    if end is None:
        return {"state": "killed", "said": "It ended without a word: it was killed, or the machine went down."}
    if end["event"] == "end":
        return {"state": "finished", "said": f"All {end.get('step')} steps are done."}
    if end["event"] == "signal":
        return {"state": "stopped", "said": f"It was stopped by {end.get('signal')} after step {end.get('step')}."}
    return {"state": "failed", "said": str(end.get("why"))}


def total_seconds(folder: Path, events: Sequence[Event]) -> float | None:
    """Over all sessions, from each start to its end; to the last word of one that was killed. None where there is no start."""
    total, found = None, list(sessions(events))
    for one in found:
        begun, ended = _time(one.start), _time(one.end or one.events[-1])
        if begun is None or ended is None:
            continue
        if one.end is None and one is found[-1]:
            ended = time.time() if _alive(one.start) else max(ended, _touched(folder))
        total = (total or 0.0) + max(0.0, ended - begun)
    return None if total is None else round(total, 3)


def _alive(start: Event) -> bool:
    """Whether the process that wrote it, on this machine, is there, and not another that has its number by now."""
    pid, written = start.get("pid"), _time(start)
    if start.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is there, and of another user
    begun = _process_begun(pid)
    return begun is None or written is None or begun <= written + SLACK_S


def _process_begun(pid: int) -> float | None:
    """In seconds since the epoch; None where there is no /proc."""
    try:
        # the name of the program, in brackets, may hold anything; of what is after it the 20th is the start, in ticks since the boot
        ticks = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def _touched(folder: Path) -> float:
    """When the run last wrote, in seconds since the epoch."""
    written = [folder / "metrics.jsonl", folder / EVENTS, *(folder / "samples").glob("*.jsonl.gz")]
    return max((path.stat().st_mtime for path in written if path.is_file()), default=0.0)


def _time(event: Event) -> float | None:
    try:
        return datetime.fromisoformat(str(event.get("time"))).timestamp()
    except ValueError:
        return None
