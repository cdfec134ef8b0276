"""Answers of a server that are under way: many at a time, each read in a thread, and what is lost is asked for again."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from burnish.rollout.sampler import Request, SamplingError
from burnish.rollout.server import LostError, RefusedError, Stream

ATTEMPTS = 3
"""Losses of the server without one completion in between, after which it is given up."""


@dataclass(slots=True, kw_only=True)
class Flight:
    """One HTTP request: the completions of one context."""

    requests: Sequence[Request]
    stream: Stream
    token_ids: list[list[int]] = field(default_factory=list)
    logp: list[list[float]] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)


class Flights:
    """What is under way of one call of `sample`: answers are read in threads, and looked at in the caller's."""

    def __init__(self, name: str, waiting: Iterable[list[Request]], concurrency: int) -> None:
        self.waiting = deque(waiting)
        self.under_way: list[Flight] = []
        self.lost = ""
        """Why the server may have been started anew: nothing is sent until all that is under way has ended."""
        self.losses = 0
        """Since the last completion."""
        self._name, self._concurrency = name, concurrency
        self._events: queue.SimpleQueue[tuple[Flight, Any]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="vllm")

    @property
    def sends(self) -> bool:
        return bool(self.waiting) and not self.lost and len(self.under_way) < self._concurrency

    def send(self, flight: Flight) -> None:
        self.under_way.append(flight)
        self._threads.submit(read, flight, self._events)

    def next(self, timeout: float) -> tuple[Flight, Any]:
        """An event of an answer, or how it ended: None or the error. Raises SamplingError where no answer goes on."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            owed = sum(len(flight.requests) - len(flight.ended) for flight in self.under_way)
            raise SamplingError(
                f"{self._name} said nothing for {timeout:g} s, and owes {owed} completions; see its own messages."
            ) from None

    def end(self, flight: Flight, error: Exception | None) -> None:
        """What the answer lacks is asked for again. Raises SamplingError."""
        self.under_way.remove(flight)
        if isinstance(error, RefusedError):
            raise SamplingError(f"{self._name} refused a request ({error}).") from error
        if missing := [one for i, one in enumerate(flight.requests) if i not in flight.ended]:
            self.waiting.appendleft(missing)
            self.losses += not self.lost
            self.lost = str(error or "the answer lacks completions")
        if self.losses >= ATTEMPTS:
            raise SamplingError(f"{self._name} was lost {self.losses} times without a completion ({self.lost}); see its own messages.")

    def close(self) -> None:
        for flight in self.under_way:
            flight.stream.close()
        self._threads.shutdown(wait=True, cancel_futures=True)


def read(flight: Flight, events: queue.SimpleQueue[tuple[Flight, Any]]) -> None:
    """In a thread: every event of the answer, and at last None or the error that ended it."""
    end: Exception | None = None
    try:
        for event in flight.stream:
            if "error" in event:  # in place of an HTTP status, which was sent before the request was looked at
                error = event["error"]
                raise (RefusedError if 400 <= error.get("code", 500) < 500 else LostError)(error.get("message", "an error"))
            events.put((flight, event))
    except (LostError, RefusedError) as error:
        end = error
    finally:
        events.put((flight, end))
