"""Decoding of models that tree attention does not fit: one context at a time, through the model's own cache."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from burnish.models.load import ModelError


class PlainDecoder:
    """As `decoding.Decoder`, for one context at a time, whose rows begin together: so no row is padded.

    `run` is the model, with or without its head; what it gives of the last tokens is what `add_contexts` and `step` give: hidden states,
    or logits.
    """

    token_bytes = 0
    """Not known: the cache is the model's own affair."""
    room = 0

    def __init__(self, run: Any, device: torch.device) -> None:
        self._run, self._device = run, device
        self._cache: dict[str, Any] = {}
        self.order: list[int] = []
        """The rows, as the next step has them."""

    def add_contexts(self, contexts: Mapping[int, np.ndarray]) -> Tensor:
        """One context. → `[1, H]`, or `[1, V]`."""
        (ids,) = contexts.values()
        self._cache, self.order = {}, []
        return self._forward(torch.from_numpy(ids.astype(np.int64))[None].to(self._device))

    def drop_contexts(self, contexts: Collection[int]) -> None:
        """It has no rows any more."""
        self._cache = {}

    def add_rows(self, contexts: Mapping[int, int]) -> None:
        """All the rows of the context."""
        if contexts:
            self.order = list(contexts)
            self._pick([0] * len(contexts))

    def drop_rows(self, rows: Collection[int]) -> None:
        keep = [place for place, row in enumerate(self.order) if row not in rows]
        self.order = [self.order[place] for place in keep]
        if keep:
            self._pick(keep)

    def make_room(self) -> None:
        """The cache grows by itself."""

    def step(self, token_R: Tensor) -> Tensor:
        """The next token of each row, in `order`. → `[R, H]`, or `[R, V]`."""
        return self._forward(token_R[:, None])

    def _forward(self, ids: Tensor) -> Tensor:
        from transformers import Cache

        out = self._run(input_ids=ids, use_cache=True, **self._cache)
        self._cache = {name: value for name, value in out.items() if isinstance(value, Cache)}
        if not self._cache:
            raise ModelError(f"{type(self._run).__name__} gives no cache to decode with; use a model that transformers can generate from.")
        return out["logits" if "logits" in out else "last_hidden_state"][:, -1]

    def _pick(self, places: list[int]) -> None:
        (cache,) = self._cache.values()
        cache.reorder_cache(torch.tensor(places, device=self._device))
