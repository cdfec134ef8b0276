"""SIGTERM and SIGINT while a run trains: the step is finished, the run saved, and the program left. A second one leaves at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any

from burnish.config.processes import processes

HEARD = (signal.SIGTERM, signal.SIGINT)
ECHO = 1.0
"""Seconds in which a second signal is the first one, told twice: to all processes by a scheduler, and by the one that started them."""
PREFIX = "signal "
"""Of names among a step's counts, by which all ranks learn of a signal in the same step."""


class Signals:
    """Within `with signals:` the first signal is only noted; `agree` makes it the word of all ranks, and `leave` obeys it.

    Handlers can only be installed in the main thread; elsewhere, and for a signal that is ignored, nothing is changed.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        """By this rank."""
        self.stop: signal.Signals | None = None
        """By all ranks; the loop ends after the step."""
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self.heard = self.stop = None
        if threading.current_thread() is threading.main_thread():
            heard = [one for one in HEARD if signal.getsignal(one) is not signal.SIG_IGN]
            self._before = {one: signal.signal(one, self._note) for one in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.heard is None:
            self.heard, self._first = signal.Signals(number), time.monotonic()
            if processes().rank == 0:  # not by print, which may be in the middle of something
                os.write(2, f"{self.heard.name}: leaving after this step; a second one leaves at once\n".encode())
        elif time.monotonic() - self._first > ECHO:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    @property
    def counts(self) -> dict[str, tuple[float, float]]:
        """What this rank has heard, to be added up over ranks beside other things."""
        return {} if self.heard is None else {f"{PREFIX}{self.heard.value}": (0.0, 1.0)}

    def agree(self, counts: Mapping[str, tuple[float, float]]) -> bool:
        """Reads the sum of all ranks' `counts`: whether there is a signal, the same on every rank."""
        found = sorted(int(name.removeprefix(PREFIX)) for name in counts if name.startswith(PREFIX))
        self.stop = self.stop or (signal.Signals(found[0]) if found else None)
        return self.stop is not None

    def leave(self, say: Callable[[str], object], where: str) -> None:
        """Nothing without a signal; else `say`s so.

        Raises KeyboardInterrupt for SIGINT, and SystemExit with status 128 + its number for another.
        """
        if self.stop is None:
            return
        say(f"Stopped by {self.stop.name} {where}.")
        raise KeyboardInterrupt if self.stop == signal.SIGINT else SystemExit(128 + self.stop)
