"""The order of the data: a pure function of (seed, epoch, index), the same on every machine and for every number of ranks.

The position of a run is two integers, (epoch, index). Nothing else has to be saved to continue it.

Every random number is a raw 64-bit output of Philox, whose bits are fixed by its definition; numpy's `permutation` and
`choice` may change between versions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from burnish.data.rows import DataError

BLOCK = 1 << 16  # draws made at a time, so that a later draw does not need every earlier one
DRAW, WALK = 0, 1  # what a random stream is for


def random_bits(count: int, seed: int, *place: int) -> np.ndarray:
    """`count` random 64-bit integers that belong to `seed` and to `place`, such as (epoch, source)."""
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=place)).random_raw(count)


def permutation(count: int, seed: int, *place: int) -> np.ndarray:
    """A random order of ``range(count)`` that belongs to `seed` and to `place`."""
    return np.argsort(random_bits(count, seed, *place), kind="stable")


def normalised(weights: Sequence[float], sources: int) -> np.ndarray:
    """Shares that add up to 1. Errors: DataError unless there is one positive, finite weight for each source."""
    shares = np.asarray(weights, dtype=np.float64)
    if len(shares) != sources or not (np.isfinite(shares) & (shares > 0)).all():
        raise DataError(f"weights={list(weights)} must be one positive number for each of the {sources} sources.")
    return shares / shares.sum()


def draw_sources(shares: np.ndarray, seed: int, start: int, stop: int) -> np.ndarray:
    """Which source draws `start:stop` of a mixture come from: int64 ``[stop - start]``, each draw by weight and independent."""
    first, last = start // BLOCK, max(start, stop - 1) // BLOCK
    bits = np.concatenate([random_bits(BLOCK, seed, DRAW, block) for block in range(first, last + 1)])
    uniform = (bits[start - first * BLOCK : stop - first * BLOCK] >> 11) * 2.0**-53
    return np.searchsorted(np.cumsum(shares)[:-1], uniform, side="right")


def count_sources(shares: np.ndarray, seed: int, stop: int) -> np.ndarray:
    """How often each source was drawn before draw `stop`: int64 ``[sources]``."""
    counts = np.zeros(len(shares), dtype=np.int64)
    for start in range(0, stop, BLOCK):
        counts += np.bincount(draw_sources(shares, seed, start, min(stop, start + BLOCK)), minlength=len(shares))
    return counts


class Order:
    """The order in which the rows of one or several sources are seen.

    Without `weights` an epoch is every row once. With `weights` each draw picks a source by weight, and an epoch is as
    many draws as there are rows; each source is walked through a permutation of its own, is permuted anew when it is
    exhausted, and is continued where the epoch before left it, so that its rows are seen equally often.
    Without `shuffle` the sources, or the walks, are in the order of their rows.

    Worked example: ``Order([2, 3], None, seed=0, shuffle=False).indices(0)`` is ``[0, 1, 2, 3, 4]``; id 3 is row 1 of
    source 1 (`locate`).
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None = None, *, seed: int, shuffle: bool = True) -> None:
        if not sizes or min(sizes) < 1:
            raise DataError(f"Every source needs at least one row, but their sizes are {list(sizes)}.")
        self.sizes, self.seed, self.shuffle = list(sizes), seed, shuffle
        self.length = sum(sizes)
        """Examples in an epoch."""
        self._first = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        self._shares = None if weights is None else normalised(weights, len(sizes))

    def indices(self, epoch: int) -> np.ndarray:
        """Ids of the rows of `epoch`, in order: int64 ``[length]``. The sources' rows are numbered one after the other."""
        if self._shares is None:
            return permutation(self.length, self.seed, WALK, epoch) if self.shuffle else np.arange(self.length)
        start = epoch * self.length
        sources = draw_sources(self._shares, self.seed, start, start + self.length)
        before = count_sources(self._shares, self.seed, start)
        ids = np.empty(self.length, dtype=np.int64)
        for source in range(len(self.sizes)):
            drawn = sources == source
            ids[drawn] = self._first[source] + self._walk(source, before[source], before[source] + drawn.sum())
        return ids

    def _walk(self, source: int, start: int, stop: int) -> np.ndarray:
        """Rows `start:stop` of a source's endless walk."""
        size = self.sizes[source]
        if not self.shuffle:
            return np.arange(start, stop) % size
        first, last = start // size, -(-stop // size)
        passes = [permutation(size, self.seed, WALK, lap, source) for lap in range(first, last)]
        return np.concatenate([*passes, np.empty(0, dtype=np.int64)])[start - first * size : stop - first * size]

    def locate(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source, row within it) of each id."""
        source = np.searchsorted(self._first, ids, side="right") - 1
        return source, ids - self._first[source]
