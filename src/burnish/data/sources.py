"""Rows from anywhere: local JSONL, JSON, CSV or Parquet files, folders and globs of them, hub ids, `datasets` objects, lists of dicts.

    rows = open_rows("train.jsonl")           # len(rows), rows[17], rows.where(17) == "train.jsonl line 18"
    rows = open_rows("data/", split="test")   # a folder's files, chosen by the split in their names
    rows = open_rows("train.jsonl", split="train[:90%]")

Local files need neither `datasets` nor torch: they are opened by an index and parsed row by row, when asked.
"""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from burnish.data.files import LINES, OPENERS, open_file, stream_lines
from burnish.data.rows import DataError, JoinedRows, ListRows, Row, Rows, ViewRows, did_you_mean, digest
from burnish.data.streams import StreamRows

__all__ = ["DataError", "Row", "Rows", "StreamRows", "open_rows"]

SPLITS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev", "eval"), "test": ("test",)}


@overload
def open_rows(
    source: Any,
    *,
    config_name: str | None = ...,
    split: str = ...,
    columns: Sequence[str] | None = ...,
    streaming: Literal[False] = ...,
) -> Rows: ...
@overload
def open_rows(
    source: Any, *, config_name: str | None = ..., split: str = ..., columns: Sequence[str] | None = ..., streaming: Literal[True]
) -> StreamRows: ...
def open_rows(
    source: Any,
    *,
    config_name: str | None = None,
    split: str = "train",
    columns: Sequence[str] | None = None,
    streaming: bool = False,
) -> Rows | StreamRows:
    """Opens `source`: a local file, folder or glob, a hub id, a `datasets` object, a list of dicts, or `Rows`.

    `config_name` is a hub data set's configuration, `split` a split or a slice of one (``"train[:90%]"``, ``"train[100:]"``),
    `columns` the columns to keep. A folder's split is found in its files' names; files that name no split are the train split.
    With `streaming`, or for an `IterableDataset`, the result is a `StreamRows`.

    Errors: DataError where there is no such file or data set, no such split or column, or no row.
    """
    wanted, start, stop = _parse_split(split)
    rows = _open(source, config_name, wanted, streaming, lines=streaming and (start, stop) == ("", ""))
    if isinstance(rows, StreamRows):
        if (start, stop) != ("", ""):
            raise DataError(f"split={split!r} slices a stream, whose length is not known; give split={wanted!r}.")
        return rows.select(columns)
    if not len(rows):
        raise DataError(f"{rows.name} is empty: split {wanted!r} has no rows.")
    if (start, stop) != ("", "") or columns is not None:
        first, last = _bound(start, len(rows), 0), _bound(stop, len(rows), len(rows))
        if first >= last:
            raise DataError(f"split={split!r} selects none of the {len(rows)} rows of {rows.name}.")
        rows = ViewRows(rows, first, last, columns)
    return StreamRows.over(rows) if streaming else rows


def _parse_split(split: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"([\w.-]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split)
    if not match:
        raise DataError(f"split={split!r} is neither a split's name nor a slice such as 'train[:1000]' or 'train[90%:]'.")
    return match[1], match[2] or "", match[3] or ""


def _bound(text: str, rows: int, default: int) -> int:
    if not text:
        return default
    at = round(int(text[:-1]) * rows / 100) if text.endswith("%") else int(text)
    return min(rows, at) if at >= 0 else max(0, rows + at)


def _open(source: Any, config_name: str | None, split: str, streaming: bool, lines: bool = False) -> Rows | StreamRows:
    """`lines`: JSON lines may come as a stream, for nothing will be asked of their number."""
    if isinstance(source, str | Path):
        return _open_path(str(source), config_name, split, streaming, lines)
    if config_name is not None:
        raise DataError(f"config_name={config_name!r} needs a hub data set, but the source is of type {type(source).__name__}.")
    if isinstance(source, Mapping):  # a DatasetDict, or a dict of sources by split
        if split not in source:
            raise DataError(f"There is no split {split!r} among {sorted(source)}{did_you_mean(split, list(source))}.")
        return _open(source[split], None, "train", streaming, lines)
    if split != "train":
        raise DataError(
            f"split={split!r} was asked of rows of type {type(source).__name__}, which have no named splits; give that split itself."
        )
    if isinstance(source, Sequence):
        return ListRows(source)
    datasets = sys.modules.get("datasets")  # an object of its classes cannot exist before it is imported
    if datasets and isinstance(source, datasets.Dataset):
        return DatasetRows(source)
    if datasets and isinstance(source, datasets.IterableDataset):
        return StreamRows.over_dataset(source)
    if isinstance(source, Rows | StreamRows):
        return source
    raise DataError(
        f"Rows cannot be read from an object of type {type(source).__name__}; give a path, a hub id, a datasets.Dataset or a list of dicts."
    )


def _open_path(source: str, config_name: str | None, split: str, streaming: bool, lines: bool) -> Rows | StreamRows:
    path, is_glob = Path(source).expanduser(), glob.has_magic(source)
    if not (path.exists() or is_glob):
        if path.suffix in OPENERS or path.is_absolute() or source.startswith((".", "~")):
            raise DataError(f"There is no file or folder {source}{_nearest_file(path) or '; give a path that exists, or a hub id'}.")
        return _open_hub(source, config_name, split, streaming)
    if config_name is not None:
        raise DataError(f"config_name={config_name!r} needs a hub data set, but {source} is local; leave it out.")
    if path.is_dir():
        return _open_folder(path, split, streaming, lines)
    if split != "train":
        raise DataError(f"split={split!r} was asked of {source}; give a file for each split, or a slice such as 'train[90%:]'.")
    if path.is_file():
        return _join([path], path.stem, lines)
    return _join(_data_files(map(Path, glob.glob(source, recursive=True)), source), path.parent.name, lines)


def _open_folder(folder: Path, split: str, streaming: bool, lines: bool) -> Rows | StreamRows:
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():  # as `save_to_disk` leaves them
        import datasets

        return _open(datasets.load_from_disk(str(folder)), None, split, streaming)
    return _join(_files_of_split(_data_files(folder.rglob("*"), folder), split, folder), folder.name, lines)


def _data_files(paths: Iterable[Path], source: object) -> list[Path]:
    files = sorted(path for path in paths if path.suffix in OPENERS and path.is_file() and not path.name.startswith("."))
    if not files:
        raise DataError(f"There is no {', '.join(OPENERS)} file in {source}.")
    return files


def _join(files: Sequence[Path], name: str, lines: bool) -> Rows | StreamRows:
    if lines and all(file.suffix in LINES for file in files):
        return stream_lines(files, files[0].stem if len(files) == 1 else name)
    parts = [open_file(file) for file in files]
    return parts[0] if len(parts) == 1 else JoinedRows(parts, name)


def _nearest_file(path: Path) -> str:
    return did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""


def _files_of_split(files: list[Path], split: str, folder: Path) -> list[Path]:
    """Files whose path in the folder says `split`; for train, those that say none where none says train."""

    def says(file: Path, words: Sequence[str]) -> bool:
        return not set(words).isdisjoint(re.split(r"[^a-z0-9]+", str(file.relative_to(folder)).lower()))

    chosen = [file for file in files if says(file, SPLITS.get(split, (split.lower(),)))]
    if not chosen and split == "train":
        named = [word for words in SPLITS.values() for word in words]
        chosen = [file for file in files if not says(file, named)]
    if not chosen:
        raise DataError(f"No file of {folder} is named for the split {split!r}: its files are {', '.join(f.name for f in files[:5])}.")
    return chosen


def _open_hub(source: str, config_name: str | None, split: str, streaming: bool) -> Rows | StreamRows:
    import datasets

    try:
        loaded = datasets.load_dataset(source, config_name, split=split, streaming=streaming)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise DataError(f"{source} is no local file or folder, and the hub gave no data set of that name: {reason}.") from error
    return _open(loaded, None, "train", streaming)


class DatasetRows(Rows):
    """A `datasets.Dataset`."""

    def __init__(self, dataset: Any) -> None:
        if dataset.format["type"] == "custom":
            raise DataError("The data set has a transform (with_transform), whose result may differ at each reading; use map instead.")
        self.name = str(dataset.split).split("[")[0] if dataset.split else "rows"
        self._dataset = dataset.with_format(None)

    @property
    def column_names(self) -> list[str]:
        return self._dataset.column_names

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> Row:
        return self._dataset[i]

    def read(self, start: int, stop: int) -> list[Row]:
        columns = self._dataset[start:stop]
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def where(self, i: int) -> str:
        return f"{self.name}[{i}]"

    def fingerprint(self) -> str:
        return digest("dataset", self._dataset._fingerprint, self._dataset.info.version, len(self), self.column_names)
