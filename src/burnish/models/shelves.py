"""Where the keys and values of contexts and rows lie while they are decoded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Shelf:
    """Keys and values of every layer, `[slots, heads, size, width]` each. Holders have the first slots, in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.holders: list[int] = []
        self.slots = 0
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def add(self, holders: Sequence[int]) -> int:
        """The first of their slots."""
        first = len(self.holders)
        self.holders += holders
        if len(self.holders) > self.slots:
            self._resize(max(len(self.holders), self.slots * 9 // 8), first)
        return first

    def of(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values; zeros where there were none. `key` and `value` `[.., heads, .., width]` are of their kind."""
        if module not in self._kept:
            # zeros, since what a mask hides is multiplied by 0 and must be finite
            self._kept[module] = (self._zeros(key), self._zeros(value))
        return self._kept[module]

    def drop(self, slots: Sequence[int]) -> None:
        """Gives up slots; the last holders move into them."""
        gone = set(slots)
        count = len(self.holders) - len(gone)
        tail = [slot for slot in range(count, len(self.holders)) if slot not in gone]
        holes = sorted(slot for slot in gone if slot < count)
        for to, source in zip(holes, tail, strict=True):
            self.holders[to] = self.holders[source]
        del self.holders[count:]
        self._move(tail, holes)
        if count < self.slots * 7 // 8:
            self._resize(count, count)

    def hand_over(self, slots: Sequence[int], other: Shelf) -> None:
        """The holders of these slots and what they hold move to a shelf with larger slots."""
        first = other.add([self.holders[slot] for slot in slots])
        everyone = len(slots) == len(self.holders)
        index = torch.tensor(slots)
        for module in list(self._kept):
            key, value = self._kept.pop(module) if everyone else self._kept[module]
            for old, new in zip((key, value), other.of(module, key, value), strict=True):
                rows = slice(0, len(slots)) if everyone else index.to(old.device)
                new[first : first + len(slots), :, : self.size] = old[rows]
        if everyone:
            self.holders, self.slots = [], 0
        else:
            self.drop(slots)

    def _zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.slots, like.shape[1], self.size, like.shape[3])

    def _move(self, sources: Sequence[int], to: Sequence[int]) -> None:
        for source, target in zip(sources, to, strict=True):
            for tensors in self._kept.values():
                for one in tensors:
                    one[target] = one[source]

    def _resize(self, slots: int, used: int) -> None:
        self.slots = slots
        for module, (key, value) in self._kept.items():
            larger = (self._zeros(key), self._zeros(value))
            for new, old in zip(larger, (key, value), strict=True):
                new[:used] = old[:used]
            self._kept[module] = larger
