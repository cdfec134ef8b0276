"""Examples in columns: a few flat arrays in memory or memory-mapped from disk, read back as `Example`s without copying a token.

One example is a run of segments: those of its prompt, then those of each branch. Every column is a plain concatenation,
so that batches, made anywhere, are appended by appending bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from burnish.data.prepare_report import PrepareReport
from burnish.data.rows import DataError
from burnish.types import SOURCES, Branch, Example, Segment

Columns = dict[str, np.ndarray]
"""An array for each name in `SCHEMA`."""
SCHEMA = {
    "tokens": "<i4",
    "segment_length": "<i4",
    "segment_source": "|u1",  # index in SOURCES
    "segment_trained": "|b1",
    "segment_label": "|i1",  # -1 for None
    "branch_segments": "<i4",
    "branch_label": "|i1",  # -1 for None
    "branch_advantage": "<f8",  # NaN for None
    "prompt_segments": "<i4",
    "branches": "<i4",
    "trained": "<i4",
    "margin": "<f8",  # NaN for None
    "row": "<i8",
}
MANIFEST = "manifest.json"
STORE_VERSION = 3

Piece = tuple[Sequence[int] | np.ndarray, int, bool]
"""A segment to be: token ids, index of its source in `SOURCES`, trained."""


class ColumnBuilder:
    """Collects examples, one by one, into columns."""

    def __init__(self) -> None:
        self._ids: list[np.ndarray] = []
        self._cells: dict[str, list[float]] = {name: [] for name in SCHEMA if name != "tokens"}

    def add(
        self,
        row: int,
        prompt: Sequence[Piece],
        branches: Sequence[Sequence[Piece]],
        trained: int,
        *,
        labels: Sequence[int] | None = None,
        segment_labels: Sequence[int] | None = None,
        margin: float = math.nan,
    ) -> None:
        """Adds an example of `row` with `trained` targets.

        `labels` has one entry for each branch and `segment_labels` one for each segment, the prompt's first: 1, 0, or -1 for none.
        """
        cells = self._cells
        for ids, source, is_trained in (*prompt, *(piece for branch in branches for piece in branch)):
            self._ids.append(np.asarray(ids, dtype=np.int32))
            cells["segment_length"].append(len(ids))
            cells["segment_source"].append(source)
            cells["segment_trained"].append(is_trained)
        cells["branch_segments"] += map(len, branches)
        cells["segment_label"] += segment_labels or [-1] * (len(prompt) + sum(map(len, branches)))
        cells["branch_label"] += labels or [-1] * len(branches)
        cells["branch_advantage"] += [np.nan] * len(branches)
        cells["prompt_segments"].append(len(prompt))
        cells["branches"].append(len(branches))
        cells["trained"].append(trained)
        cells["margin"].append(margin)
        cells["row"].append(row)

    def add_example(self, row: int, example: Example) -> None:
        """Adds any example that was not sampled, without reference log-probs. Errors: DataError where it carries behaviour log-probs."""
        parts = [example.prompt, *(branch.segments for branch in example.branches)]
        for segment in (segment for part in parts for segment in part):
            if segment.behaviour_logp is not None or segment.policy_version is not None:
                raise DataError(f"Example {example.group_id} was sampled (it has behaviour log-probs); a store keeps data that was not.")
        prompt, *branches = [[(s.token_ids, SOURCES.index(s.source), s.trained) for s in part] for part in parts]
        self.add(
            row,
            prompt,
            branches,
            example.trained_tokens,
            labels=[_or(b.label, -1) for b in example.branches],
            segment_labels=[_or(s.label, -1) for part in parts for s in part],
            margin=_or(example.margin, math.nan),
        )
        count = len(branches)
        self._cells["branch_advantage"][-count:] = [_or(b.advantage, math.nan) for b in example.branches]

    def columns(self) -> Columns:
        tokens = np.concatenate([np.empty(0, dtype=np.int32), *self._ids])
        return {"tokens": tokens} | {name: np.asarray(cells, dtype=SCHEMA[name]) for name, cells in self._cells.items()}


def _or(value: float | None, absent: Any) -> Any:
    return absent if value is None else value


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBranches:
    """Where the prompt and the first branch of each example lie: ``tokens[start:prompt_end]`` and ``tokens[prompt_end:end]``."""

    tokens: np.ndarray
    start: np.ndarray
    prompt_end: np.ndarray
    end: np.ndarray
    """int64 ``[examples]``, like `start` and `prompt_end`."""
    segment_end: np.ndarray
    """int64 ``[segments + 1]``, from 0."""
    trained_before: np.ndarray
    """int64 ``[segments + 1]``: trained tokens before each segment, and in all."""

    def trained(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Trained tokens among ``tokens[start:end]``, for many at once."""
        return self._before(end) - self._before(start)

    def _before(self, at: np.ndarray) -> np.ndarray:
        segment = np.searchsorted(self.segment_end[1:-1], at, side="right")
        whole, inside = self.trained_before[segment], at - self.segment_end[segment]
        return whole + np.where(self.trained_before[segment + 1] > whole, inside, 0)


class ExampleStore:
    """Examples by number.

    ``store[i]`` is an `Example` whose segments are views of the columns; `lengths` and `trained` are int64 ``[len(store)]``,
    tokens (as a tree: the prompt once) and targets of the loss of each example.
    """

    def __init__(self, columns: Columns, *, name: str, report: PrepareReport | None = None, group_ids: Sequence[str] | None = None) -> None:
        """`group_ids` defaults to ``f"{name}:{row}"``. Errors: DataError for no example."""
        if not len(columns["row"]):
            raise DataError(f"There is no example in {name}; give at least one.")
        self.name = name
        self._columns, self._group_ids = columns, group_ids
        self._hashes: dict[str, str] | None = None
        branches, prompt_segments = columns["branches"], columns["prompt_segments"]
        self._branch_end = np.cumsum(branches, dtype=np.int64)
        first_branch = self._branch_end - branches
        segments = prompt_segments + np.add.reduceat(columns["branch_segments"], first_branch, dtype=np.int64)
        self._segment_end = np.cumsum(segments)
        self._token_end = np.concatenate(([0], np.cumsum(columns["segment_length"], dtype=np.int64)))
        self.lengths = np.diff(self._token_end[self._segment_end], prepend=0)
        self.trained = columns["trained"].astype(np.int64)
        self.report = report or PrepareReport(
            rows=len(self),
            kept=len(self),
            tokens=int(self.lengths.sum()),
            trained_tokens=int(self.trained.sum()),
            desirable=int((columns["branch_label"] == 1).sum()),
            undesirable=int((columns["branch_label"] == 0).sum()),
            format="examples",
        )

    @classmethod
    def from_examples(cls, examples: Sequence[Example], name: str = "examples") -> ExampleStore:
        """Keeps `examples` in memory, under their own group ids."""
        builder = ColumnBuilder()
        for row, example in enumerate(examples):
            builder.add_example(row, example)
        return cls(builder.columns(), name=name, group_ids=[example.group_id for example in examples])

    def __len__(self) -> int:
        return len(self._branch_end)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        i = index % len(self)
        columns = self._columns
        first = int(self._segment_end[i - 1]) if i else 0
        last = int(self._segment_end[i])
        segments = [
            Segment(
                token_ids=columns["tokens"][a:b], source=SOURCES[source], trained=bool(trained), label=None if label < 0 else bool(label)
            )
            for a, b, source, trained, label in zip(
                self._token_end[first:last],
                self._token_end[first + 1 : last + 1],
                columns["segment_source"][first:last],
                columns["segment_trained"][first:last],
                columns["segment_label"][first:last],
                strict=True,
            )
        ]
        at = int(columns["prompt_segments"][i])
        prompt, branches = tuple(segments[:at]), []
        for branch in range(self._branch_end[i] - columns["branches"][i], self._branch_end[i]):
            count, label = int(columns["branch_segments"][branch]), int(columns["branch_label"][branch])
            advantage = float(columns["branch_advantage"][branch])
            branches.append(
                Branch(
                    segments=tuple(segments[at : at + count]),
                    label=None if label < 0 else bool(label),
                    advantage=None if np.isnan(advantage) else advantage,
                )
            )
            at += count
        group_id = self._group_ids[i] if self._group_ids else f"{self.name}:{columns['row'][i]}"
        margin = float(columns["margin"][i])
        return Example(group_id=group_id, prompt=prompt, branches=tuple(branches), margin=None if math.isnan(margin) else margin)

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def first_branches(self) -> FirstBranches:
        """Where prompts and first branches are, without an example being made."""
        columns = self._columns
        first_branch = self._branch_end - columns["branches"]
        first = np.concatenate(([0], self._segment_end[:-1]))
        prompt_end = first + columns["prompt_segments"]
        trained = columns["segment_length"] * columns["segment_trained"]
        return FirstBranches(
            tokens=columns["tokens"],
            start=self._token_end[first],
            prompt_end=self._token_end[prompt_end],
            end=self._token_end[prompt_end + columns["branch_segments"][first_branch]],
            segment_end=self._token_end,
            trained_before=np.concatenate(([0], np.cumsum(trained, dtype=np.int64))),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every column and of the group ids: equal for equal examples, in memory or on disk."""
        hashes = self._hashes or _hashes(self._columns)
        return _sha256(json.dumps([[hashes[name] for name in SCHEMA], self.name, self._group_ids]).encode())

    @classmethod
    def load(cls, folder: Path) -> ExampleStore:
        """Maps a store that `StoreWriter` wrote. Errors: DataError where a file is missing or was changed, or is of another version."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            if manifest["version"] != STORE_VERSION:
                raise DataError(f"{folder} is a store of version {manifest['version']}, not {STORE_VERSION}.")
            if manifest != _sealed(manifest):
                raise DataError(f"{folder / MANIFEST} was changed after it was written.")
            for name, size in manifest["sizes"].items():
                found = (folder / name).stat().st_size
                if found != size:
                    raise DataError(f"{folder / name} has {found} bytes instead of {size}.")
            columns = {name: np.memmap(folder / name, dtype=dtype, mode="r").view(np.ndarray) for name, dtype in SCHEMA.items()}
            hashes = _hashes(columns)
            for name in SCHEMA:
                if hashes[name] != manifest["hashes"][name]:
                    raise DataError(f"The content of {folder / name} does not have the hash it was written with.")
            store = cls(columns, name=manifest["name"], report=PrepareReport.from_json(manifest["report"]))
            store._hashes = hashes
            return store
        except OSError as error:
            raise DataError(f"{error.filename or folder} cannot be read ({error.strerror}).") from error
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{folder / MANIFEST} is not the manifest of a store.") from error


class StoreWriter:
    """Appends columns to the files of a new folder; `finish` writes the manifest, without which the folder is no store."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True)
        self._folder, self._name = folder, name
        self._files: Mapping[str, BinaryIO] = {column: (folder / column).open("wb") for column in SCHEMA}
        self._hashes = {column: hashlib.sha256() for column in SCHEMA}

    def append(self, columns: Columns) -> None:
        for name, file in self._files.items():
            file.write(columns[name].data)
            self._hashes[name].update(columns[name].data)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def finish(self, report: PrepareReport) -> None:
        for file in self._files.values():
            file.flush()
        sizes = {name: (self._folder / name).stat().st_size for name in SCHEMA}
        hashes = {name: digest.hexdigest() for name, digest in self._hashes.items()}
        manifest = {"version": STORE_VERSION, "name": self._name, "sizes": sizes, "hashes": hashes, "report": report.to_json()}
        (self._folder / MANIFEST).write_text(json.dumps(_sealed(manifest), indent=1))


def _sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """With a hash of itself."""
    plain = {name: value for name, value in manifest.items() if name != "sha256"}
    return plain | {"sha256": _sha256(json.dumps(plain, sort_keys=True).encode())}


def _hashes(columns: Columns) -> dict[str, str]:
    return {name: _sha256(columns[name].data) for name in SCHEMA}


def _sha256(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()
