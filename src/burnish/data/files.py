"""Local data files as rows: JSON lines by an index of their lines, JSON, CSV, Parquet. Nothing here imports `datasets` or torch."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from burnish.data.rows import DataError, ListRows, Row, Rows
from burnish.data.streams import StreamRows

CHUNK = 1 << 26  # bytes searched for line ends at a time


def _not_utf8(where: str, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start}); convert the file to UTF-8.")


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class JsonLines(Rows):
    """One JSON object on each line. Opening finds the lines; a line is parsed when its row is asked for. Blank lines are not rows."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = path.stem, path
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
        ends = [np.flatnonzero(self._bytes[at : at + CHUNK] == ord("\n")) + at for at in range(0, len(self._bytes), CHUNK)]
        newlines = np.concatenate(ends)
        starts = np.concatenate(([0], newlines + 1))
        stops = np.concatenate((newlines, [len(self._bytes)]))
        spaced = np.flatnonzero((starts == stops) | np.isin(self._bytes[np.minimum(starts, len(self._bytes) - 1)], list(b" \t\r\n")))
        blank = [line for line in spaced if not self._bytes[starts[line] : stops[line]].tobytes().strip()]
        self._line = np.delete(np.arange(len(starts)), blank)
        self._start, self._stop = starts[self._line], stops[self._line]

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    def __len__(self) -> int:
        return len(self._line)

    def __getitem__(self, i: int) -> Row:
        line = self._bytes[self._start[i] : self._stop[i]].tobytes()
        try:
            return _parsed(line)
        except (ValueError, TypeError) as error:
            raise _no_row(self.where(i), error) from error

    def where(self, i: int) -> str:
        return f"{self._path.name} line {self._line[i] + 1}"

    def fingerprint(self) -> str:
        return _file_hash(self._path)


def _parsed(line: bytes) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise TypeError(type(row).__name__)
    return row


def _no_row(where: str, error: ValueError | TypeError) -> DataError:
    if isinstance(error, UnicodeDecodeError):
        return _not_utf8(where, error)
    if isinstance(error, json.JSONDecodeError):
        return DataError(f"{where} is not JSON ({error.msg} at column {error.colno}); write one object on each line.")
    return DataError(f"{where} is JSON of type {error}, not an object; write one object on each line.")


class _Lines:
    """The lines of several files that are rows. As they are read, it is kept where the others stand, which are few."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._first: list[int] = []
        """Of each file that was begun: the number of its first row."""
        self._blank: list[list[int]] = []
        """Of each: how many rows stand before each line that is none, in ascending order."""
        self._known = 0
        """Lines that were read, in the pass that went furthest."""

    def __iter__(self) -> Iterator[bytes]:
        row = line = 0
        for place, path in enumerate(self._files):
            if place == len(self._first):
                self._first.append(row)
                self._blank.append([])
            try:
                with path.open("rb") as file:
                    for text in file:
                        line += 1
                        blank = text.isspace()
                        if blank and line > self._known:
                            self._blank[place].append(row)
                        self._known = max(self._known, line)
                        if not blank:
                            row += 1
                            yield text
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error.strerror}).") from error

    def where(self, row: int) -> str:
        """Of a row that was read."""
        place = bisect_right(self._first, row) - 1
        return f"{self._files[place].name} line {row - self._first[place] + 1 + bisect_right(self._blank[place], row)}"


def stream_lines(files: Sequence[Path], name: str) -> StreamRows:
    """Files of JSON lines one after the other, read and never indexed: what is held does not grow. To seek is to read up to there.

    Errors: DataError where a file cannot be read, or there is no row.
    """
    lines = _Lines(files)

    def open_at(n: int) -> Iterator[Row]:
        for row, line in enumerate(islice(lines, n, None), n):
            try:
                yield _parsed(line)
            except (ValueError, TypeError) as error:
                raise _no_row(lines.where(row), error) from error

    if next(iter(lines), None) is None:
        raise DataError(f"{files[0] if len(files) == 1 else name} is empty: it has no rows.")
    return StreamRows(open_at, name, lines.where)


class FileRows(ListRows):
    """A file that was read whole."""

    def __init__(self, rows: list[Row], path: Path, lines: list[int] | None = None) -> None:
        self._path, self._lines = path, lines
        super().__init__(rows, path.stem)

    def where(self, i: int) -> str:
        return f"{self._path.name} line {self._lines[i]}" if self._lines else f"{self._path.name}[{i}]"

    def fingerprint(self) -> str:
        return _file_hash(self._path)


def _open_json(path: Path) -> Rows:
    with path.open("rb") as file:
        if file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
            return _open_json_object(path)
    try:
        rows = json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise _not_utf8(str(path), error) from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name} line {error.lineno} is not JSON ({error.msg} at column {error.colno}).") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds JSON of type {type(rows).__name__}; give an array of objects, or one object on each line.")
    return FileRows(rows, path)


def _open_json_object(path: Path) -> Rows:
    """A .json file that begins with an object: JSON lines under another suffix, or one object, which is no list of rows."""
    rows = JsonLines(path)
    try:
        rows[0]
    except DataError as error:
        raise DataError(f"{path} is one JSON object; give an array of objects, or one object on each line.") from error
    return rows


def _open_csv(path: Path) -> Rows:
    limit = csv.field_size_limit(sys.maxsize)  # a cell holds a document; the module's own limit is 128 KiB
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True, delimiter="\t" if path.suffix == ".tsv" else ",")
            header = next(reader, [])
            rows, lines, line = [], [], reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise DataError(f"{path.name} line {line} has {len(cells)} cells, but the header names {len(header)} columns.")
                if cells:
                    rows.append(dict(zip(header, cells, strict=True)))
                    lines.append(line)
                line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path.name} line {reader.line_num} is not CSV ({error}).") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(str(path), error) from error
    finally:
        csv.field_size_limit(limit)
    return FileRows(rows, path, lines)


class ParquetRows(Rows):
    """A Parquet file, memory-mapped and decoded by `pyarrow`."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        self.name, self._path = path.stem, path
        try:
            self._table = parquet.read_table(path, memory_map=True)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a Parquet file ({str(error).splitlines()[0].rstrip('.')}).") from error

    @property
    def column_names(self) -> list[str]:
        return self._table.column_names

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.read(i, i + 1)[0]

    def read(self, start: int, stop: int) -> list[Row]:
        return self._table.slice(start, stop - start).to_pylist()

    def where(self, i: int) -> str:
        return f"{self._path.name}[{i}]"

    def fingerprint(self) -> str:
        return _file_hash(self._path)


LINES = (".jsonl", ".ndjson")
OPENERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": _open_json,
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".parquet": ParquetRows,
}


def open_file(path: Path) -> Rows:
    """Rows of one local file, by its suffix.

    Errors: DataError where there is no such file, its suffix is none of `OPENERS`, it is empty, or it is not what its suffix says.
    """
    if path.suffix not in OPENERS:
        raise DataError(f"{path} has the suffix {path.suffix!r}; give a file in one of {', '.join(OPENERS)}.")
    try:
        rows: Rows = OPENERS[path.suffix](path) if path.stat().st_size else ListRows([], path.stem)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    if not len(rows):
        raise DataError(f"{path} is empty: it has no rows.")
    return rows
