"""From rewards that failed to the end of a run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from burnish.rewards.samples import Failure, Reward, RewardError

RECENT = 64
"""Failures are counted over the last whole steps that together have so many completions."""


class FailureCount:
    """How many completions have no reward because one failed, and of what; and the end of a run in which they are too many."""

    def __init__(self, names: Sequence[str], max_reward_failures: float) -> None:
        self.names, self.most = tuple(names), max_reward_failures
        self.reasons: Counter[str] = Counter()
        """Since the beginning, by name and reason: "numeric: raised KeyError"."""
        self._steps: deque[tuple[int, int]] = deque()
        self._last: tuple[str, Failure] | None = None

    def add(self, rewards: Sequence[Sequence[Reward]]) -> dict[str, int]:
        """A step's: [sample][function]. How many of its completions failed, by name and reason; and how many none had anything to say of.

        Raises RewardError where failures are more than the share `max_reward_failures` of the last steps' completions.
        """
        found: Counter[str] = Counter()
        failed = 0
        for sample in rewards:
            failures = [(name, one) for name, one in zip(self.names, sample, strict=True) if isinstance(one, Failure)]
            found.update({f"{name}: {one.reason}" for name, one in failures})
            failed += bool(failures)
            self._last = failures[0] if failures else self._last
            if all(one is None for one in sample):
                found["no reward has anything to say of it"] += 1
        self.reasons.update(found)
        self._steps.append((failed, len(rewards)))
        while sum(count for _, count in self._steps) - self._steps[0][1] >= RECENT:
            self._steps.popleft()
        self._check()
        return dict(found)

    def _check(self) -> None:
        failed, count = map(sum, zip(*self._steps, strict=True))
        if failed > self.most * count:
            assert self._last is not None
            name, failure = self._last
            first = failure.detail.split("\n")[0]
            said = f"{failure.reason}: {first}" if first else failure.reason
            raise RewardError(
                f"{failed} of the last {count} completions have no reward because a function failed, more than max_reward_failures="
                f"{self.most:g} allows; the last failure is that {name!r} {said}; mend it, or allow more."
            )
