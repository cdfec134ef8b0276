"""What a row source is: something with a length, rows by number, a way to name a row in an error, and a fingerprint of its content."""

from __future__ import annotations

import bisect
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate
from typing import Any, Protocol

Row = dict[str, Any]


class DataError(ValueError):
    """Data that cannot be used as asked. One sentence: what is wrong, where, and what to do."""


class Placed(Protocol):
    """What names a row in an error: `Rows`, or a stream."""

    name: str

    def where(self, i: int, /) -> str: ...


class Rows(ABC):
    """Rows by number. Implementations parse lazily; a row that cannot be parsed raises `DataError` when it is asked for."""

    name: str
    """Short, for group ids (``"train"`` in ``"train:17"``)."""

    @property
    @abstractmethod
    def column_names(self) -> list[str]:
        """Of the first row, where rows may differ."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> Row: ...

    @abstractmethod
    def where(self, i: int) -> str:
        """Row `i` as a person finds it: ``"train.jsonl line 18"``."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Equal for equal content, in this and every later process."""

    def read(self, start: int, stop: int) -> list[Row]:
        """Rows `start:stop`; faster than one by one where the source is columnar."""
        return [self[i] for i in range(start, stop)]

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def digest(*parts: Any) -> str:
    """SHA-256 of `parts` as JSON."""
    return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()


class ListRows(Rows):
    """Rows in memory."""

    def __init__(self, rows: Sequence[Row], name: str = "rows") -> None:
        self.name = name
        self._rows = rows
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DataError(f"{self.where(i)} is of type {type(row).__name__}, not an object of columns; give a list of dicts.")

    @property
    def column_names(self) -> list[str]:
        return list(self._rows[0])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Row:
        return self._rows[i]

    def where(self, i: int) -> str:
        return f"{self.name}[{i}]"

    def fingerprint(self) -> str:
        # Row by row: the JSON of a million rows at once would hold them in memory a second time.
        content = hashlib.sha256()
        for row in self._rows:
            content.update(json.dumps(row, default=repr).encode() + b"\n")
        return content.hexdigest()


class PlacedRows(ListRows):
    """Rows in memory, made of the rows of another source and found under their places in it."""

    def __init__(self, rows: Sequence[Row], source: Placed) -> None:
        self._source = source
        super().__init__(rows, source.name)

    def where(self, i: int) -> str:
        return self._source.where(i)


class JoinedRows(Rows):
    """Several sources, one after the other."""

    def __init__(self, parts: Sequence[Rows], name: str) -> None:
        self.name = name
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    @property
    def column_names(self) -> list[str]:
        return self._parts[0].column_names

    def _find(self, i: int) -> tuple[Rows, int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        part = bisect.bisect_right(self._ends, i)
        return self._parts[part], i - (self._ends[part - 1] if part else 0)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, i: int) -> Row:
        part, row = self._find(i)
        return part[row]

    def where(self, i: int) -> str:
        part, row = self._find(i)
        return part.where(row)

    def fingerprint(self) -> str:
        return digest("joined", [part.fingerprint() for part in self._parts])

    def read(self, start: int, stop: int) -> list[Row]:
        rows: list[Row] = []
        while start < stop:
            part, row = self._find(start)
            rows += part.read(row, min(len(part), row + stop - start))
            start += min(len(part) - row, stop - start)
        return rows


class ViewRows(Rows):
    """A contiguous part of a source, and some of its columns."""

    def __init__(self, rows: Rows, start: int, stop: int, columns: Sequence[str] | None = None) -> None:
        self.name = rows.name
        self._rows, self._start, self._stop, self._columns = rows, start, stop, columns
        for column in columns or ():
            if column not in rows.column_names:
                raise DataError(
                    f"Column {column!r} of `columns` is not among the columns of {rows.name}, "
                    f"{rows.column_names}{did_you_mean(column, rows.column_names)}."
                )

    @property
    def column_names(self) -> list[str]:
        return list(self._columns or self._rows.column_names)

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._select(self._rows[self._start + i])

    def _select(self, row: Row) -> Row:
        return row if self._columns is None else {name: row[name] for name in self._columns if name in row}

    def where(self, i: int) -> str:
        return self._rows.where(self._start + i)

    def fingerprint(self) -> str:
        return digest("view", self._rows.fingerprint(), self._start, self._stop, self._columns)

    def read(self, start: int, stop: int) -> list[Row]:
        return [self._select(row) for row in self._rows.read(self._start + start, self._start + stop)]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``" (did you mean 'train'?)"`` where a known word is near, or nothing."""
    near = get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
