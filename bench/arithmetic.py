"""The arithmetic of a bench: medians with their ranges, ratios of pairs, exponents, and whether two runs say the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

LEAST_WIDTH = 0.02
"""Two medians that are this near, relatively, are the same, however narrow their ranges."""
LEAST_SLOPE = 0.05
"""Likewise two exponents, absolutely: they are at times 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A median, and the least and the greatest of `count` values."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float]) -> Spread:
    found = sorted(values)
    return Spread(median=median(found), low=found[0], high=found[-1], count=len(found))


def paired_ratios(theirs: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]) -> list[float]:
    """Theirs divided by ours: the k-th value of a round by the k-th of the same round, which was measured next to it.

    Raises:
        ValueError: a round has more values on one side.
    """
    return [t / o for their_round, our_round in zip(theirs, ours, strict=True) for t, o in zip(their_round, our_round, strict=True)]


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of log y over log x by least squares: 1 for what grows in proportion, 0 for what does not grow.

    Raises:
        ValueError: a number is not above 0, and has no logarithm.
    """
    if not all(one > 0.0 for one in (*xs, *ys)):
        raise ValueError(f"exponent: {list(ys)} at {list(xs)} are not all above 0; leave out what was lost in noise.")
    log_x, log_y = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mean_x, mean_y = fmean(log_x), fmean(log_y)
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(log_x, log_y, strict=True))
    return covariance / math.fsum((x - mean_x) ** 2 for x in log_x)


def within(first: Spread, second: Spread, *, exponents: bool = False) -> bool:
    """Whether two runs say the same: their ranges meet, each with half of its width more on either side, of two values three widths.

    Of a few values the range misses as many again too often to be compared as it is: with three on each side, ranges of the same noise
    stay apart once in ten times, with two once in three; widened, about once in a hundred.
    """
    (low, high), (other_low, other_high) = (
        _widened(one, LEAST_SLOPE if exponents else LEAST_WIDTH * abs(one.median)) for one in (first, second)
    )
    return low <= other_high and other_low <= high


def _widened(one: Spread, least: float) -> tuple[float, float]:
    more = max((one.high - one.low) * (3 if one.count == 2 else 0.5), least / 2)
    return one.low - more, one.high + more
