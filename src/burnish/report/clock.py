"""Where the time of a run goes, and how much of it is left."""

from __future__ import annotations

import math
import time
from collections import deque

WINDOW = 50
"""Steps over which their duration is averaged: what the first ones took beyond that is soon forgotten."""
TRAINING = "training"


class Clock:
    """Steps are timed without what is done beside them, evaluating and saving; time left is that of the steps to come, and of as many
    evaluations and checkpoints as there will be if they go on at the pace of those that there were."""

    def __init__(self, total: int = 0, done: int = 0) -> None:
        """`total` steps, of which `done` lie behind a resumed run: nothing is judged by these."""
        self.total, self.done, self.step = total, done, done
        self.spent: dict[str, float] = {}
        """Phase → seconds, up to the last change of phase."""
        self.phase = self._before = TRAINING
        self._phase_began = self._step_began = self.began = time.monotonic()
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self.beside = 0.0
        """Seconds of all that was done beside the steps."""
        self._beside = 0.0
        """Seconds since the last step was done that are not the next one's."""
        self._aside: float | None = None
        """When what is done beside the steps began."""
        self._occasions: dict[str, tuple[int, float, int]] = {}
        """What is done beside the steps → how many times it was, seconds in all, and the step of the last time."""

    def enter(self, phase: str) -> None:
        """The time from now on belongs to `phase`."""
        if phase != self.phase:
            now = time.monotonic()
            self.spent[self.phase] = self.spent.get(self.phase, 0.0) + now - self._phase_began
            self.phase, self._phase_began = phase, now

    @property
    def in_phase(self) -> float:
        """Seconds."""
        return time.monotonic() - self._phase_began

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if step > self.step:
            now, number = time.monotonic(), step - self.step
            self._steps.extend([(now - self._step_began - self._beside) / number] * min(number, WINDOW))
            self.step, self._step_began, self._beside = step, now, 0.0

    def set_aside(self, phase: str) -> None:
        """Until `go_on`, what is done is no part of a step."""
        if self._aside is None:  # else what was set aside has failed
            self._before, self._aside = self.phase, time.monotonic()
        self.enter(phase)

    def go_on(self, what: str) -> None:
        """The steps go on after `what`, such as one evaluation set; nothing where none was set aside."""
        if self._aside is None:
            return
        taken, self._aside = time.monotonic() - self._aside, None
        self.enter(self._before)
        self._beside, self.beside = self._beside + taken, self.beside + taken
        if self.step > self.done:  # an evaluation at the start does not come again
            times, seconds, _ = self._occasions.get(what, (0, 0.0, 0))
            self._occasions[what] = times + 1, seconds + taken, self.step

    @property
    def left(self) -> float | None:
        """Seconds; None before the first step is done, and when none is to come.

        Worked example: 4 of 10 steps took 2 s each, and an evaluation after every second one 3 s: 6 steps and 3 evaluations, 21 s. One
        second into the next step it is 20 s.
        """
        if not self._steps or self.step >= self.total:
            return None
        mean = sum(self._steps) / len(self._steps)
        in_step = (time.monotonic() if self._aside is None else self._aside) - self._step_began - self._beside
        left = mean * (self.total - self.step) - min(in_step, mean)
        for times, seconds, last in self._occasions.values():
            every = (last - self.done) / times
            left += seconds / times * math.ceil((self.total - last) / every)
        return left

    @property
    def taken(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


def words(seconds: float) -> str:
    """As people read it: 4:12, 1:01:39, 3 d 4 h."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
