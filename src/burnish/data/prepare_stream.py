"""Streamed rows → examples, in batches and as they are asked for, from a cursor of two integers.

stream = prepare_stream(open_rows("train.jsonl", streaming=True), tokenizer, PrepareOptions(max_length=1024), seed=0)
for example, cursor in stream.open_at((0, 0)): ...       # endless; continue with open_at(cursor)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from burnish.data.formats import Format, check_row, check_rows
from burnish.data.prepare import format_row
from burnish.data.prepare_groups import preparer_for
from burnish.data.prepare_report import PrepareReport, Tally
from burnish.data.readers import PrepareOptions, RowError
from burnish.data.rows import DataError, PlacedRows, Row
from burnish.data.store import ExampleStore
from burnish.data.streams import StreamMixture, StreamRows
from burnish.types import Example

BATCH_ROWS = 256
PATIENCE = 10_000
"""Rows after which a stream that has not given one example is given up."""

Cursor = tuple[int, int]
Drawn = tuple[int, int, Row]
"""(stream, number of the row in it, row)."""


def prepare_stream(
    streams: StreamRows | Sequence[StreamRows],
    tokenizer: Any,
    options: PrepareOptions | None = None,
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    shuffle_buffer: int = 0,
) -> PreparedStream:
    """Examples of one stream, or of several: one after the other, or mixed by `weights` (see `StreamMixture`).

    Rows are shuffled in blocks of `shuffle_buffer`. Errors: as `prepare`, when the rows are reached.
    """
    several = [streams] if isinstance(streams, StreamRows) else list(streams)
    return PreparedStream(StreamMixture(several, weights, seed=seed, shuffle_buffer=shuffle_buffer), tokenizer, options or PrepareOptions())


class PreparedStream:
    """Examples of a mixture of streams. `report` is the account of the rows read so far."""

    def __init__(self, mixture: StreamMixture, tokenizer: Any, options: PrepareOptions) -> None:
        self._mixture, self._options = mixture, options
        self._formats = [self._format(stream) for stream in mixture.streams]
        self._preparers = [
            preparer_for(tokenizer, replace(options, formatting_func=None), fmt)
            for stream, fmt in zip(mixture.streams, self._formats, strict=True)
        ]
        self._tallies = [Tally() for _ in mixture.streams]
        self._first: dict[str, str] = {}
        names = [stream.name for stream in mixture.streams]
        self._names = names if len(set(names)) == len(names) else [f"{i}/{name}" for i, name in enumerate(names)]

    def _format(self, stream: StreamRows) -> Format:
        rows = [self._row(row, stream.where(i)) for i, row in enumerate(stream.head(100))]
        text_field = "text" if self._options.formatting_func else self._options.text_field
        return check_rows(PlacedRows(rows, stream), text_field=text_field, accepted=self._options.accepted)

    def _row(self, row: Row, where: str) -> Row:
        return row if self._options.formatting_func is None else format_row(self._options.formatting_func, row, where)

    @property
    def report(self) -> PrepareReport:
        total = Tally()
        for tally in self._tallies:
            total.merge(tally)
        unused = dict.fromkeys(chain.from_iterable(fmt.unused for fmt in self._formats))
        report = total.report(
            str,
            max_length=self._options.max_length,
            truncation_mode=self._options.truncation_mode,
            format=", ".join(dict.fromkeys(map(str, self._formats))),
            unused_columns=list(unused),
        )
        return replace(report, first=dict(self._first))

    def __iter__(self) -> Iterator[Example]:
        """Endless, where the streams are not."""
        return (example for example, _ in self.open_at((0, 0)))

    def open_at(self, cursor: Cursor) -> Iterator[tuple[Example, Cursor]]:
        """(example, cursor of the draw after it), epoch after epoch from `cursor` on; a resumed stream gives the same.

        Errors: DataError for a row that cannot be used, and where nothing read so far can be trained on.
        """
        epoch, index = cursor
        while True:
            rows = self._mixture.rows(epoch, index)
            batch = list(islice(rows, BATCH_ROWS))
            while batch:
                following = list(islice(rows, BATCH_ROWS))
                made = self._prepare(batch)
                for position, example in made:
                    ends = not following and position == made[-1][0]
                    yield example, (epoch + 1, 0) if ends else (epoch, index + position + 1)
                index += len(batch)
                batch = following
                if not batch or index > PATIENCE:
                    self._expect_some()
            epoch, index = epoch + 1, 0

    def _expect_some(self) -> None:
        if not any(tally.counts["kept"] for tally in self._tallies):
            raise DataError(f"Nothing in the stream can be trained on: {self.report}")

    def _prepare(self, batch: Sequence[Drawn]) -> list[tuple[int, Example]]:
        """(position in the batch, example) of the rows kept, in order."""
        made: list[tuple[int, Example]] = []
        for source in sorted({stream for stream, _, _ in batch}):
            positions = [i for i, (stream, _, _) in enumerate(batch) if stream == source]
            made += self._prepare_source(source, positions, [batch[i] for i in positions])
        return sorted(made, key=lambda one: one[0])

    def _prepare_source(self, source: int, positions: Sequence[int], drawn: Sequence[Drawn]) -> Iterator[tuple[int, Example]]:
        stream, fmt, tally = self._mixture.streams[source], self._formats[source], self._tallies[source]
        before = tally.counts["rows"]

        def where(row: int) -> str:
            return stream.where(drawn[row - before][1])

        rows = []
        for _, number, row in drawn:
            rows.append(self._row(row, stream.where(number)))
            check_row(rows[-1], stream.where(number), fmt)
        try:
            columns, counted = self._preparers[source](rows, before)
        except RowError as error:
            raise DataError(f"{where(error.row)}: {error.message}") from error
        self._first = {kind: where(row) for kind, row in counted.first.items()} | self._first
        tally.merge(counted)
        kept = [int(row) - before for row in columns["row"]]
        if not kept:
            return iter(())
        store = ExampleStore(columns, name=stream.name, group_ids=[f"{self._names[source]}:{drawn[i][1]}" for i in kept])
        return zip([positions[i] for i in kept], store, strict=True)
