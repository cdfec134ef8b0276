"""Rows whose number is not known, or that are not to be indexed; and mixtures of them that continue from two integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np

from burnish.data.order import BLOCK, count_sources, draw_sources, normalised, permutation
from burnish.data.rows import DataError, Row, Rows


class StreamRows:
    """Rows one after the other, with a cursor: `state` is the number of rows read, `seek` moves it."""

    def __init__(self, open_at: Callable[[int], Iterator[Row]], name: str, where: Callable[[int], str]) -> None:
        """`open_at(n)` opens the stream anew and skips `n` rows."""
        self.name, self.where = name, where
        self.state = 0
        self._open_at = open_at

    @classmethod
    def over(cls, rows: Rows) -> StreamRows:
        """Streams an indexed source; `seek` costs nothing."""
        return cls(lambda n: (rows[i] for i in range(n, len(rows))), rows.name, rows.where)

    @classmethod
    def over_dataset(cls, dataset: Any) -> StreamRows:
        """Streams a `datasets.IterableDataset`; `seek` costs what its `skip` costs."""
        name = str(dataset.split).split("[")[0] if dataset.split else "stream"
        return cls(lambda n: iter(dataset.skip(n) if n else dataset), name, lambda i: f"{name}[{i}]")

    def select(self, columns: Sequence[str] | None) -> StreamRows:
        """The same stream with some of its columns."""
        if columns is None:
            return self
        for row in self.head(1):
            if missing := [column for column in columns if column not in row]:
                raise DataError(f"Column {missing[0]!r} of `columns` is not among the columns of {self.name}, {list(row)}.")

        def selected(n: int) -> Iterator[Row]:
            return ({name: row[name] for name in columns if name in row} for row in self._open_at(n))

        return StreamRows(selected, self.name, self.where)

    def __iter__(self) -> Iterator[Row]:
        for row in self._open_at(self.state):
            self.state += 1
            yield row

    def seek(self, state: int) -> None:
        """The next iteration begins with row number `state`."""
        self.state = state

    def head(self, rows: int) -> list[Row]:
        """The first rows; the cursor stays."""
        return list(islice(self._open_at(0), rows))

    def rows_from(self, start: int, shuffle_buffer: int = 0, place: tuple[int, ...] = ()) -> Iterator[tuple[int, Row]]:
        """(number, row) of one pass, from the `start`-th on.

        With a `shuffle_buffer`, rows are read in blocks of that many and each block is put in a random order that belongs
        to `place`. Unlike a sliding buffer, a block is all there is to read again to continue at any row.
        """
        if shuffle_buffer < 2:
            yield from enumerate(self._open_at(start), start)
            return
        number = start // shuffle_buffer
        rows, skip = self._open_at(number * shuffle_buffer), start % shuffle_buffer
        while block := list(islice(rows, shuffle_buffer)):
            order = permutation(len(block), *place, number)[skip:]
            yield from ((number * shuffle_buffer + int(i), block[i]) for i in order)
            number, skip = number + 1, 0


class StreamMixture:
    """Several streams as one, from a cursor of two integers (epoch, index).

    Without `weights` an epoch is each stream once, one after the other. With `weights` each draw picks a stream by weight,
    as in `Order`, and a stream that is exhausted begins anew: there is one endless epoch, number 0.
    """

    def __init__(
        self, streams: Sequence[StreamRows], weights: Sequence[float] | None = None, *, seed: int, shuffle_buffer: int = 0
    ) -> None:
        self.streams, self.seed, self.shuffle_buffer = list(streams), seed, shuffle_buffer
        self._shares = None if weights is None else normalised(weights, len(streams))

    def rows(self, epoch: int = 0, index: int = 0) -> Iterator[tuple[int, int, Row]]:
        """(stream, number of the row in it, row) from the `index`-th draw of `epoch` on."""
        if self._shares is not None:
            if epoch:
                raise DataError(f"A weighted mixture of streams has one endless epoch, number 0, not {epoch}; stop it by max_steps.")
            yield from self._drawn(self._shares, index)
            return
        for source in range(len(self.streams)):
            reached = False
            for number, row in self._lap(source, epoch, index):
                reached = True
                yield source, number, row
            # Where the skip left not one row, the cursor lies in a later stream.
            index = index - self._size(source) if index and not reached else 0

    def _lap(self, source: int, lap: int, start: int) -> Iterator[tuple[int, Row]]:
        return self.streams[source].rows_from(start, self.shuffle_buffer, (self.seed, lap, source))

    def _size(self, source: int) -> int:
        return sum(1 for _ in self.streams[source].rows_from(0))

    def _drawn(self, shares: np.ndarray, index: int) -> Iterator[tuple[int, int, Row]]:
        walks = [self._walk(source, int(start)) for source, start in enumerate(count_sources(shares, self.seed, index))]
        for start in count(index, BLOCK):
            for source in draw_sources(shares, self.seed, start, start + BLOCK):
                yield int(source), *next(walks[source])

    def _walk(self, source: int, start: int) -> Iterator[tuple[int, Row]]:
        """A stream's endless walk, from its `start`-th row on."""
        lap = 0
        rows = self._lap(source, 0, start)
        first = next(rows, None)
        if first is None and start:  # the cursor lies in a later lap; its place follows from the stream's size
            size = self._size(source)
            if size:
                lap, at = divmod(start, size)
                rows = self._lap(source, lap, at)
                first = next(rows, None)
        if first is None:
            raise DataError(f"The stream {self.streams[source].name} is empty.")
        yield first
        yield from rows
        for later in count(lap + 1):
            yield from self._lap(source, later, 0)
