"""From what a user gives as a data set to prepared examples in an order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import numpy as np

from burnish.config.rows import RowsConfig
from burnish.config.sft import SFTConfig
from burnish.data.formats import SFT_FORMATS, Format, check_rows
from burnish.data.order import Order, permutation
from burnish.data.prepare import PrepareOptions, prepare
from burnish.data.rows import DataError, PlacedRows, Row, Rows, digest
from burnish.data.sources import StreamRows, open_rows
from burnish.data.store import FirstBranches
from burnish.types import Example

HELD_OUT = 7
"""Place of the hold-out's randomness, beside those in `order`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One or several sources of rows; with weights, a mixture."""

    sources: tuple[Rows | StreamRows, ...]
    weights: tuple[float, ...] | None = None

    @property
    def streaming(self) -> bool:
        return any(isinstance(source, StreamRows) for source in self.sources)

    def first_rows(self, source: int) -> Rows:
        rows = self.sources[source]
        return PlacedRows(rows.head(100), rows) if isinstance(rows, StreamRows) else rows


def as_dataset(given: Any) -> Dataset:
    """A file, folder, hub id, `datasets` object, list of dicts or `Dataset`. Raises DataError."""
    return given if isinstance(given, Dataset) else Dataset(sources=(open_rows(given),))


class PickedRows(Rows):
    """Some of `rows`, by number, in the order given."""

    def __init__(self, rows: Rows, picked: np.ndarray) -> None:
        self.rows, self.picked = rows, picked
        self.name = rows.name

    @property
    def column_names(self) -> list[str]:
        return self.rows.column_names

    def __len__(self) -> int:
        return len(self.picked)

    def __getitem__(self, i: int) -> Row:
        return self.rows[int(self.picked[i])]

    def where(self, i: int) -> str:
        return self.rows.where(int(self.picked[i]))

    def fingerprint(self) -> str:
        return digest(self.rows.fingerprint(), self.picked.tolist())


def hold_out(rows: Rows, size: int | float, seed: int) -> tuple[Rows, Rows]:
    """(the others, `size` rows drawn by `seed`), each in the order of the rows. Below 1, `size` is a share.

    Raises DataError when nothing would be left on one side.
    """
    count = round(size * len(rows)) if size < 1 else int(size)
    if not 0 < count < len(rows):
        raise DataError(f"test_split_size={size} holds out {count} of the {len(rows)} rows of {rows.name}; leave rows on both sides.")
    drawn = permutation(len(rows), seed, HELD_OUT)
    return PickedRows(rows, np.sort(drawn[count:])), PickedRows(rows, np.sort(drawn[:count]))


class Prepared(Protocol):
    """What preparing one source gives: `store.ExampleStore`."""

    name: str
    lengths: np.ndarray
    trained: np.ndarray
    report: Any

    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example: ...
    def first_branches(self) -> FirstBranches: ...


class JoinedExamples:
    """The prepared sources as one sequence, one after the other: the ids of `Order`."""

    def __init__(self, parts: Sequence[Prepared]) -> None:
        self.parts = list(parts)
        self.lengths = np.concatenate([p.lengths for p in parts])
        self.trained = np.concatenate([p.trained for p in parts])
        self.fingerprint = parts[0].fingerprint if len(parts) == 1 else digest(*(p.fingerprint for p in parts))
        self._ends = np.cumsum([len(p) for p in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part][index - (int(self._ends[part - 1]) if part else 0)]

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def describe(self) -> dict[str, Any]:
        """For the run's data.json."""
        return {
            "fingerprint": self.fingerprint,
            "examples": len(self),
            "reports": [str(part.report) for part in self.parts],
            "counts": [part.report.to_json() for part in self.parts],
            "lengths": length_bins(self.lengths),
        }

    def check_both_labels(self) -> None:
        """Errors: DataError where completions with one of the labels true and false are missing."""
        desirable = sum(part.report.desirable for part in self.parts)
        undesirable = sum(part.report.undesirable for part in self.parts)
        if not (desirable and undesirable):
            found = (
                f"all {desirable + undesirable:,} are {'true' if desirable else 'false'}" if desirable or undesirable else "there are none"
            )
            raise DataError(f"Learning from labels needs some that are true and some that are false, but {found}; add rows with others.")

    def order(self, weights: Sequence[float] | None, *, seed: int, shuffle: bool) -> Order:
        return Order([len(p) for p in self.parts], weights, seed=seed, shuffle=shuffle)


def length_bins(lengths: np.ndarray, most: int = 20) -> list[tuple[int, int, int]]:
    """At most so many of one width, 1, 2, 5, 10, 20, 50, …: (shortest, longest, how many), in tokens, empty ones between others too.

    ``[3, 4, 12]`` in at most 5: ``[(0, 4, 2), (5, 9, 0), (10, 14, 1)]``.
    """
    if not len(lengths):
        return []
    sizes = (factor * 10**power for power in count() for factor in (1, 2, 5))
    size = next(size for size in sizes if int(lengths.max()) // size < most)
    return [(i * size, (i + 1) * size - 1, int(n)) for i, n in enumerate(np.bincount(lengths // size)) if i * size + size > lengths.min()]


def named_sets(given: Any) -> Mapping[str, Any]:
    """Evaluation data as a mapping from metric prefix to data set: "eval" for one, "eval_<name>" for each of several."""
    if given is None:
        return {}
    return {f"eval_{name}": one for name, one in given.items()} if isinstance(given, Mapping) else {"eval": given}


def formats_of(
    dataset: Dataset, *, accepted: Sequence[str] = SFT_FORMATS, text_field: str = "text", has_formatting_func: bool = False
) -> tuple[Format, ...]:
    """The format of each source, one of those `accepted`, its first rows checked. Raises DataError."""
    options: dict[str, Any] = {"accepted": accepted, "text_field": text_field, "has_formatting_func": has_formatting_func}
    return tuple(check_rows(dataset.first_rows(i), **options) for i in range(len(dataset.sources)))


def formats_for(args: RowsConfig, dataset: Dataset, *, has_formatting_func: bool = False) -> tuple[Format, ...]:
    """`formats_of` as a method's options say it."""
    text_field = args.dataset_text_field if isinstance(args, SFTConfig) else "text"
    return formats_of(dataset, accepted=args.row_formats, text_field=text_field, has_formatting_func=has_formatting_func)


def prepare_all(
    dataset: Dataset, tokenizer: Any, options: Sequence[PrepareOptions], cache_dir: str | None, num_proc: int | None
) -> JoinedExamples:
    """Every source prepared whole. Raises DataError for a stream."""
    parts: list[Prepared] = []
    for rows, one in zip(dataset.sources, options, strict=True):
        if isinstance(rows, StreamRows):
            raise DataError(f"{rows.name} is a stream, and an evaluation set is read whole, more than once; give a file or a data set.")
        parts.append(prepare(rows, tokenizer, one, cache_dir=cache_dir, num_proc=num_proc))
    return JoinedExamples(parts)
