"""The data of a run: from what a user gives to micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from burnish.config.rows import RowsConfig
from burnish.config.values import ConfigError
from burnish.data.batches import Batches, Cursor, OfflineBatches, StreamBatches, evaluation_trees
from burnish.data.dataset import Dataset, JoinedExamples, as_dataset, named_sets, prepare_all
from burnish.data.formats import Format
from burnish.data.known_logps import KnownLogps, with_logps
from burnish.data.prepare import PrepareOptions
from burnish.data.prepare_stream import PreparedStream, prepare_stream
from burnish.data.sources import StreamRows
from burnish.distributed.launch import Launch
from burnish.models.memory import ROW
from burnish.types import Example, TokenTree

SHUFFLE_BUFFER = 1000
"""Rows of a stream that are shuffled together."""

Opened = Callable[[Cursor], Iterator[tuple[Example, Cursor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a method reads rows."""

    formats: Callable[[Dataset], tuple[Format, ...]]
    """The format of each source's rows. Raises DataError for rows that the method does not read."""
    options: Callable[[Format], PrepareOptions]
    arranged: Callable[[JoinedExamples, bool], Any]
    """What becomes of prepared examples before they are drawn, for training or not: KTO puts each beside another prompt's completion."""
    arranged_stream: Callable[[Opened], Opened]


class Sets:
    """The training set and the evaluation sets of a run. All of them are prepared when this is made, streams aside.

    Raises ConfigError, DataError.
    """

    def __init__(self, train: Any, evaluation: Any, reading: Reading, args: Any, tokenizer: Callable[[], Any]) -> None:
        self.args, self._reading = args, reading
        self.train_set = None if train is None else as_dataset(train)
        if self.train_set is not None and self.train_set.streaming and args.max_steps < 1:
            raise ConfigError("A stream does not say how long it is; give max_steps.")
        evaluated = {prefix: as_dataset(given) for prefix, given in named_sets(evaluation).items()}
        formats = {id(one): reading.formats(one) for one in (*filter(None, [self.train_set]), *evaluated.values())}
        self.tokenizer = tokenizer()
        whole = self.train_set is not None and not self.train_set.streaming
        self.train_formats = formats.get(id(self.train_set), ())
        self.train: Any = self._prepare(self.train_set, self.train_formats, True) if whole and self.train_set is not None else None
        self.eval: dict[str, Any] = {prefix: self._prepare(one, formats[id(one)]) for prefix, one in evaluated.items()}
        self.streamed: PreparedStream | None = None
        self.known: KnownLogps | None = None
        """Log-probs of the reference, where they are on disk."""

    def prepared(self, given: Any) -> dict[str, Any]:
        """Other evaluation sets, by their metrics' prefix."""
        sets = {prefix: as_dataset(one) for prefix, one in named_sets(given).items()}
        return {prefix: self._prepare(one, self._reading.formats(one)) for prefix, one in sets.items()}

    def _prepare(self, dataset: Dataset, formats: Sequence[Format], training: bool = False) -> Any:
        rows: RowsConfig = self.args
        options = [self._reading.options(one) for one in formats]
        joined = prepare_all(dataset, self.tokenizer, options, rows.dataset_cache_dir, rows.dataset_num_proc)
        return self._reading.arranged(joined, training)

    @property
    def longest(self) -> int:
        """Tokens of the longest training example."""
        return ROW if self.train is None else int(self.train.lengths.max(initial=1))

    @property
    def identity(self) -> str:
        """What the training data is, for a run that is continued."""
        if self.train is not None:
            return str(self.train.fingerprint[:16])
        return f"stream of {', '.join(rows.name for rows in self.train_set.sources)}" if self.train_set else "stream of "

    @property
    def weights(self) -> str:
        return str(self.train_set and self.train_set.weights)

    def described(self) -> dict[str, Any]:
        return {name: one.describe() for name, one in {"train": self.train, **self.eval}.items() if one is not None}

    def stream(self) -> tuple[PreparedStream, Opened]:
        """The training stream, which counts the rows that are read of it, and how it is opened at a cursor."""
        assert self.train_set is not None
        streams = [rows if isinstance(rows, StreamRows) else StreamRows.over(rows) for rows in self.train_set.sources]
        buffer = SHUFFLE_BUFFER if self.args.train_sampling_strategy == "random" else 0
        options = replace(self._reading.options(self.train_formats[0]), format=None)
        shape = {"weights": self.train_set.weights, "seed": self.args.seed, "shuffle_buffer": buffer}
        prepared = prepare_stream(streams, self.tokenizer, options, **shape)
        return prepared, self._reading.arranged_stream(prepared.open_at)

    def batches(self, max_tokens: int, here: Launch) -> Batches:
        """The steps of the training set, this rank's part of each."""
        shape: dict[str, Any] = {"batch_size": self.args.batch_size, "max_tokens": max_tokens, "rank": here.rank, "ranks": here.world_size}
        if self.train_set is None:
            return StreamBatches(lambda cursor: iter(()), **shape)
        if self.train is None:
            self.streamed, opened = self.stream()
            return StreamBatches(lambda cursor: ((self.looked_up(example), after) for example, after in opened(cursor)), **shape)
        order = self.train.order(self.train_set.weights, seed=self.args.seed, shuffle=self.args.train_sampling_strategy == "random")
        return OfflineBatches(_Looked(self.train, self), order.indices, **shape)

    def looked_up(self, example: Example) -> Example:
        """With the log-probs of the reference, where these are on disk. Raises DataError where they should be, and are not."""
        return example if self.known is None else with_logps(example, self.known)

    def trees(self, sets: dict[str, Any], max_tokens: int, here: Launch) -> dict[str, Callable[[], Iterable[TokenTree]]]:
        """Evaluation's micro-batches, this rank's share."""
        shape = {"max_tokens": max_tokens, "rank": here.rank, "ranks": here.world_size}
        return {prefix: partial(evaluation_trees, _Looked(examples, self), **shape) for prefix, examples in sets.items()}


class _Looked:
    """Examples with the log-probs of the reference from the moment that these are known."""

    def __init__(self, examples: Any, sets: Sets) -> None:
        self._examples, self._sets = examples, sets
        self.lengths: np.ndarray = examples.lengths

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._sets.looked_up(self._examples[index])
