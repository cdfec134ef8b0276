"""Rank 0's ear: it hears from every rank, notices those that are gone, and decides which of several failures is the cause."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

GONE, FAILED = 0.2, 1.0
"""Seconds in which others may still be heard after one is gone, or has failed."""
WITHOUT_A_WORD = "gone without a word, as a process that is killed (out of memory?) or crashes"


class Link:
    """A connection that carries one JSON object per line."""

    def __init__(self, one: socket.socket) -> None:
        self.socket = one
        self._rest = b""
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, **message: Any) -> bool:
        """False where the other end is gone."""
        try:
            with self._sending:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def read(self) -> list[dict[str, Any]] | None:
        """What has arrived; None where the other end is gone, or speaks otherwise. Blocks where nothing has arrived."""
        try:
            block = self.socket.recv(1 << 16)
        except OSError:
            block = b""
        if not block:
            return None
        *lines, self._rest = (self._rest + block).split(b"\n")
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why the run ends."""

    sentence: str
    speaker: int
    """The rank that says it: the cause itself where it can."""
    gone: list[int] = field(default_factory=list)
    together: bool = False
    """All ranks failed by themselves, as they do when a run is refused."""


class Hub(threading.Thread):
    """Listens to all ranks, rank 0's own among them, until one has failed or rank 0 leaves."""

    def __init__(self, links: Mapping[int, Link]) -> None:
        super().__init__(name="burnish hub", daemon=True)
        self.links = dict(links)
        self.failed: dict[int, dict[str, Any]] = {}
        """In the order in which they were heard of."""
        self.doing: dict[int, dict[str, Any]] = {}
        self.gone: list[int] = []
        self.left: list[int] = []
        self._deadline: float | None = None

    def run(self) -> None:
        while 0 not in self.left:
            living = {rank: link for rank, link in self.links.items() if rank not in (*self.gone, *self.left)}
            if self._deadline is not None and (time.monotonic() > self._deadline or set(living) <= set(self.failed)):
                self._tell(kind="verdict", **asdict(self._verdict(living)))
                return
            ready, _, _ = select.select(list(living.values()), [], [], 0.05 if self._deadline is not None else None)
            for rank, link in living.items():
                if link in ready:
                    self._hear(rank, link.read())
        self._tell(kind="closed")

    def _hear(self, rank: int, messages: list[dict[str, Any]] | None) -> None:
        if messages is None:
            self.gone.append(rank)
            self._collect(GONE)
        for message in messages or ():
            kind = message.pop("kind")
            if kind == "left":
                self.left.append(rank)
            elif kind == "doing":
                self.doing[rank] = message
            elif kind == "failed":
                self.failed.setdefault(rank, message)
                self._collect(FAILED)

    def _collect(self, seconds: float) -> None:
        if self._deadline is None:
            self._tell(kind="ask")
        self._deadline = min(self._deadline or float("inf"), time.monotonic() + seconds)

    def _tell(self, **message: Any) -> None:
        for rank, link in self.links.items():
            if rank not in self.gone:
                link.send(**message)

    def _verdict(self, living: Mapping[int, Link]) -> Verdict:
        together = not self.gone and set(living) <= set(self.failed)
        if self.gone:
            speaker = min(living)
            return Verdict(sentence=self._of_gone(), speaker=speaker, gone=self.gone)
        own = [rank for rank, message in self.failed.items() if message["waited_for"] is None]
        rank = next(iter(own or self.failed))
        message = self.failed[rank]
        if own:
            return Verdict(sentence=f"Rank {rank} failed: {message['error']}", speaker=rank, together=together)
        return Verdict(sentence=self._of_waiting(rank, message), speaker=rank)

    def _of_gone(self) -> str:
        waits = [f"rank {rank} was at {one['what']}" for rank, one in sorted(self.doing.items()) if rank not in self.gone]
        who = f"Rank {self.gone[0]} is" if len(self.gone) == 1 else f"Ranks {', '.join(map(str, sorted(self.gone)))} are"
        meanwhile = f"; meanwhile {waits[0]}" if waits else ""
        return f"{who} {WITHOUT_A_WORD}{meanwhile}."

    def _of_waiting(self, rank: int, message: Mapping[str, Any]) -> str:
        """Absent is who has not come to this wait; where all have come to it, who is still in it and did not give up."""
        others = [one for one in self.links if one not in self.failed]
        behind = [one for one in others if one not in self.doing or self.doing[one]["number"] < message["number"]]
        absent = ", ".join(f"rank {one} ({self._whereabouts(one)})" for one in behind or others)
        what = f"for {message['waited_for']}"
        waited = f"Rank {rank} waited {message['seconds']:.0f} s {what}" if message["timed_out"] else f"Rank {rank} waited {what} in vain"
        if absent:
            return f"{waited}; not there: {absent}."
        return f"{waited}; all ranks are there, and the connection between some is lost: {message['error']}"

    def _whereabouts(self, rank: int) -> str:
        if rank in self.left:
            return "its program has ended"
        if rank not in self.doing:
            return "it does not answer"
        one = self.doing[rank]
        return f"{'in' if one['inside'] else 'last seen at'} {one['what']} {one['seconds']:.0f} s ago"
