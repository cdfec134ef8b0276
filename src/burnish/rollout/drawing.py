"""Prompts in the order in which they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from burnish.data.dataset import Dataset
from burnish.data.order import Order
from burnish.data.rows import DataError, Rows, digest
from burnish.data.sources import StreamRows
from burnish.rollout.groups import Prompt

Render = Callable[[Sequence[Mapping[str, Any]]], list[np.ndarray]]
"""Token ids of the prompts of rows. Raises DataError."""


class Prompts:
    """The rows of a data set as prompts. Those of more than `max_length` tokens are passed over, and counted.

    Raises DataError for a stream, and for a set without rows.
    """

    def __init__(self, dataset: Dataset, render: Render, *, seed: int, shuffle: bool, max_length: int | None) -> None:
        for rows in dataset.sources:
            if isinstance(rows, StreamRows):
                raise DataError(f"{rows.name} is a stream, and prompts are drawn by their number; give a file or a data set.")
        self.sources: tuple[Rows, ...] = tuple(rows for rows in dataset.sources if isinstance(rows, Rows))
        self.weights, self.max_length = dataset.weights, max_length
        self._order = Order([len(rows) for rows in self.sources], dataset.weights, seed=seed, shuffle=shuffle)
        self._render = render
        self.too_long: Counter[str] = Counter()
        """Place of each row that was passed over → how often."""

    def __len__(self) -> int:
        """Draws of an epoch."""
        return self._order.length

    @property
    def fingerprint(self) -> str:
        return digest(*(rows.fingerprint() for rows in self.sources))

    def first(self, count: int) -> list[Prompt]:
        """The first rows that fit, whatever the order."""
        numbers = ((source, i) for source, rows in enumerate(self.sources) for i in range(min(len(rows), 100)))
        found = (self._prompt(source, i, "0:0") for source, i in numbers)
        return [prompt for prompt, _ in zip((one for one in found if one is not None), range(count), strict=False)]

    def drawn(self, epoch: int, index: int) -> Iterator[tuple[Prompt, int]]:
        """The prompts of `epoch` from draw `index` on, each with the number of the draw after it.

        Raises DataError where all rows of the epoch are too long.
        """
        found = False
        for after, number in enumerate(self._order.indices(epoch)[index:], start=index + 1):
            source, i = (int(one) for one in self._order.locate(number))
            prompt = self._prompt(source, i, f"{epoch}:{after}")
            if prompt is not None:
                found = True
                yield prompt, after
        if not found and not index:
            raise DataError(f"All {len(self):,} prompts have more than max_prompt_length={self.max_length} tokens; allow longer ones.")

    def all(self) -> Iterator[Prompt]:
        """Every row once, in its order."""
        for source, rows in enumerate(self.sources):
            for i in range(len(rows)):
                prompt = self._prompt(source, i, "0:0")
                if prompt is not None:
                    yield prompt

    def _prompt(self, source: int, i: int, draw: str) -> Prompt | None:
        rows = self.sources[source]
        place, row = f"{rows.name}:{i}", rows[i]
        try:
            (ids,) = self._render([row])
        except DataError as error:
            raise DataError(str(error).replace("rows[0]", rows.where(i), 1)) from error
        if self.max_length is not None and len(ids) > self.max_length:
            self.too_long[place] += 1
            return None
        return Prompt(place=place, draw=f"{draw}:{place}", row=row, token_ids=ids)
