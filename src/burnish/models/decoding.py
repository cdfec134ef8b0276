"""Decoding with tree attention: many rows at once, each one token a step, over keys and values that rows of one context share.

A context is computed once (contexts that are new together are one flat row, a forest) and its keys and values are kept; each row has keys
and values of its own tokens beside them. In a step, all rows are one flat row again. It goes through the attention that the trainer uses,
``"tree"``, with a layout in the mask's place (`_Step`) that attends to the context and to the row's own tokens apart, and joins the two
softmaxes by their log-sum-exps (Dao et al. 2022, FlashAttention, section 3.1).

Keys and values lie in shelves, one for each size of slot. A row whose slot is full moves to a shelf with slots twice as large, so none
has room for all the tokens that it might come to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from burnish.models.attention import Attending, Layout, Options, attending, layout_of
from burnish.models.shelves import Shelf
from burnish.types import Node

OWN = 32
"""Tokens of a row's first slot."""


def context_slot(tokens: int) -> int:
    """Tokens of a slot for a context: few sizes, and at most a fifth more than needed from 64 on."""
    step = max(16, 1 << max(0, tokens.bit_length() - 3))
    return -(-tokens // step) * step


@dataclass(slots=True)
class _Prefill(Attending):
    """Contexts as a forest, whose keys and values go to their slots."""

    forest: Layout
    places: list[tuple[Shelf, int]]
    """Of each node of the forest."""
    widths: dict[nn.Module, int]
    """Bytes of one token's keys and values, by layer."""

    @property
    def tokens(self) -> int:
        return self.forest.tokens

    def windowed(self, window: int) -> _Prefill:
        return replace(self, forest=self.forest.windowed(window))

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        self.widths[module] = key.shape[1] * (key.shape[3] * key.element_size() + value.shape[3] * value.element_size())
        for (shelf, slot), node in zip(self.places, self.forest.nodes, strict=True):
            for kept, new in zip(shelf.of(module, key, value), (key, value), strict=True):
                kept[slot, :, : node.end - node.start] = new[0, :, node.start : node.end]
        return self.forest.attend(module, query, key, value, options)


@dataclass(slots=True, kw_only=True)
class _Shared:
    """The rows of the contexts of one shelf: `[contexts, m]`, those with fewer rows filled up with row 0."""

    shelf: Shelf
    row_Cm: np.ndarray
    length_C: np.ndarray

    @property
    def index(self) -> np.ndarray:
        return self.row_Cm.reshape(-1)


@dataclass(slots=True, kw_only=True)
class _Own:
    """The rows of one shelf, which are next to each other in the step."""

    shelf: Shelf
    first: int
    last: int


@dataclass(slots=True)
class _Step(Attending):
    """One token of each row."""

    shared: list[_Shared]
    own: list[_Own]
    back_R: Tensor
    """Where each row stands among the rows of `shared`, end to end."""
    context_R: np.ndarray
    """Tokens of each row's context."""
    before_R: np.ndarray
    """Tokens of its own that each row has from earlier steps."""
    window: int | None = None
    kept: dict[Any, Any] = field(default_factory=dict)
    """Masks and indices, made once for all layers with one window."""

    @property
    def tokens(self) -> int:
        return len(self.context_R)

    def windowed(self, window: int) -> _Step:
        return replace(self, window=window)

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        query, key, value = (one[0].transpose(0, 1) for one in (query, key, value))  # [R, heads, width]
        rows, heads, _ = query.shape
        query_R = query.reshape(rows, key.shape[1], heads // key.shape[1], query.shape[2])
        own = [self._own(one, module, query_R, key, value, options) for one in self.own]
        shared = [self._shared(one, module, query_R, key, value, options) for one in self.shared]
        out, lse = (_joined(list(parts)) for parts in zip(*own, strict=True))
        their_out, their_lse = (_joined(list(parts))[self.back_R] for parts in zip(*shared, strict=True))
        mixed = torch.lerp(out, their_out, torch.sigmoid(their_lse - lse).to(out.dtype)[..., None])
        if options.sinks is not None:
            # a sink only adds exp(sink) to the softmax's denominator
            sinks = options.sinks.to(lse.dtype).view(key.shape[1], -1)
            mixed = mixed * torch.sigmoid(torch.logaddexp(lse, their_lse) - sinks)[..., None].to(mixed.dtype)
        return mixed.reshape(1, rows, heads, -1).transpose(1, 2)

    def _own(self, part: _Own, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        """Writes the new keys and values, and attends to all of the rows' own. → `[rows, heads, group, width]`, `[rows, heads, group]`."""
        rows = slice(part.first, part.last)
        at, mask = self._keep(("own", part.first, query.dtype), partial(self._own_mask, part, query))
        keys, values = part.shelf.of(module, key[:, :, None], value[:, :, None])
        count = part.last - part.first
        for kept, new in ((keys, key), (values, value)):
            if isinstance(at, int):
                kept[:count, :, at] = new[rows]
            else:
                kept[torch.arange(count, device=at.device), :, at] = new[rows]
        longest = int(self.before_R[rows].max()) + 1
        return _part(query[rows], keys[:count, :, :longest], values[:count, :, :longest], mask, options)

    def _own_mask(self, part: _Own, query: Tensor) -> tuple[int | Tensor, Tensor | None]:
        """(Where the new keys and values go: one place, or one for each row; what the rows see, None: all.)"""
        before = self.before_R[part.first : part.last]
        longest, window = int(before.max()), self.window
        at = longest if (before == longest).all() else torch.from_numpy(before).to(query.device)
        if isinstance(at, int) and (window is None or longest < window):
            return at, None
        key = np.arange(longest + 1)
        seen = key <= before[:, None]
        if window is not None:
            seen &= before[:, None] - key < window
        return at, _additive(seen[:, None, None, :], query)

    def _shared(
        self, part: _Shared, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        """Attends to the contexts of one shelf. → `[contexts * m, heads, group, width]`, `[contexts * m, heads, group]`."""
        contexts, m = part.row_Cm.shape
        name = ("shared", part.shelf.size, query.dtype, query.shape[2])
        index, mask = self._keep(name, partial(self._shared_mask, part, query))
        _, heads, group, width = query.shape
        longest = int(part.length_C.max())
        keys, values = part.shelf.of(module, key[:, :, None], value[:, :, None])
        asked = query[index].view(contexts, m, heads, group, width).transpose(1, 2).reshape(contexts, heads, m * group, width)
        out, lse = _part(asked, keys[:contexts, :, :longest], values[:contexts, :, :longest], mask, options)
        out = out.reshape(contexts, heads, m, group, -1).transpose(1, 2).reshape(contexts * m, heads, group, -1)
        return out, lse.reshape(contexts, heads, m, group).transpose(1, 2).reshape(contexts * m, heads, group)

    def _shared_mask(self, part: _Shared, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """(Which rows ask; what they see, None: all.)"""
        index = torch.from_numpy(part.index).to(query.device)
        longest = int(part.length_C.max())
        at = (self.context_R + self.before_R)[part.row_Cm]  # [contexts, m]
        whole = bool((part.length_C == longest).all())
        if whole and (self.window is None or int(at.max()) < self.window):
            return index, None
        key = np.arange(longest)
        seen = (key < part.length_C[:, None])[:, None]
        if self.window is not None:
            seen = np.repeat(seen & (at[:, :, None] - key < self.window), query.shape[2], axis=1)
        return index, _additive(seen[:, None], query)

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        full = (self.window, key)
        if full not in self.kept:
            self.kept[full] = make()
        return self.kept[full]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _additive(seen: np.ndarray, like: Tensor) -> Tensor:
    """0 where a key is seen, and elsewhere the lowest finite number: a row that sees none of a part has a log-sum-exp and not NaN."""
    mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(torch.from_numpy(~seen).to(like.device), torch.finfo(like.dtype).min)


def _part(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Options) -> tuple[Tensor, Tensor]:
    """Softmax attention `[B, heads, Q, width]` and the log-sum-exps `[B, heads, Q]` of its scores. `mask` is added to them."""
    if options.plain and query.device.type == "cpu" and key.shape[3] == value.shape[3]:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # scaled_dot_product_attention keeps the log-sum-exps to itself
        seen = None if mask is None else mask.expand(len(query), 1, query.shape[2], key.shape[2])
        return flash(query, key, value, 0.0, False, attn_mask=seen, scale=options.scaling)
    with torch.autocast(query.device.type, enabled=False):
        scores = (query @ key.transpose(2, 3)).to(torch.promote_types(query.dtype, torch.float32)) * options.scaling
        if options.softcap is not None:
            scores = options.softcap * torch.tanh(scores / options.softcap)
        if mask is not None:
            scores = scores + mask
        lse = scores.logsumexp(-1)
        return (scores - lse[..., None]).exp_().to(value.dtype) @ value, lse


class Decoder:
    """Contexts and rows of one model, each named by a number that the caller chooses and may use again when it is dropped.

    `run` is the model without its head: token ids and positions `[T]` → hidden states `[T, H]`. It is called under a layout.
    """

    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], device: torch.device, backend: str | None = None) -> None:
        self._run, self._device, self._backend = run, device, backend
        self._contexts: dict[int, Shelf] = {}
        self._rows: dict[int, Shelf] = {}
        self._place: dict[int, tuple[int, int]] = {}
        """Of each context: the size of its slot, and its tokens."""
        self._context: dict[int, int] = {}
        """Of each row."""
        self._before: dict[int, int] = {}
        """Tokens of its own that each row has."""
        self._widths: dict[nn.Module, int] = {}
        self._plan: _Step | None = None

    @property
    def order(self) -> list[int]:
        """The rows, as the next step has them."""
        return [row for shelf in self._rows.values() for row in shelf.holders]

    @property
    def token_bytes(self) -> int:
        """Of one token's keys and values in all layers; 0 before the first context."""
        return sum(self._widths.values())

    @property
    def room(self) -> int:
        """For how many tokens the slots in use have room, once those that are full have been exchanged for larger ones."""
        full = sum(size for size, shelf in self._rows.items() for row in shelf.holders if self._before[row] == size)
        return full + sum(len(shelf.holders) * shelf.size for shelf in (*self._contexts.values(), *self._rows.values()))

    def add_contexts(self, contexts: Mapping[int, np.ndarray]) -> Tensor:
        """Computes contexts, in one pass. → The hidden states `[contexts, H]` of their last tokens."""
        sizes = {name: context_slot(len(ids)) for name, ids in contexts.items()}
        slot: dict[int, int] = {}
        for size in dict.fromkeys(sizes.values()):
            names = [name for name in contexts if sizes[name] == size]
            first = self._contexts.setdefault(size, Shelf(size)).add(names)
            slot |= {name: first + i for i, name in enumerate(names)}
        ends = np.cumsum([len(ids) for ids in contexts.values()])
        nodes = tuple(Node(start=int(end) - len(ids), end=int(end), parent=-1) for end, ids in zip(ends, contexts.values(), strict=True))
        positions = torch.from_numpy(np.concatenate([np.arange(len(ids)) for ids in contexts.values()])).to(self._device)
        token_ids = torch.from_numpy(np.concatenate(list(contexts.values())).astype(np.int64)).to(self._device)
        places = [(self._contexts[sizes[name]], slot[name]) for name in contexts]
        self._place |= {name: (sizes[name], len(ids)) for name, ids in contexts.items()}
        self._plan = None
        with attending(_Prefill(layout_of(nodes, positions, self._backend), places, self._widths)):
            return self._run(token_ids, positions)[torch.from_numpy(ends - 1).to(self._device)]

    def drop_contexts(self, contexts: Collection[int]) -> None:
        """None may have rows."""
        for size in {self._place.pop(one)[0] for one in contexts}:
            _drop(self._contexts, size, contexts)
        self._plan = None

    def add_rows(self, contexts: Mapping[int, int]) -> None:
        """Rows that begin, and the context of each."""
        if contexts:
            self._rows.setdefault(OWN, Shelf(OWN)).add(list(contexts))
            self._context |= contexts
            self._before |= dict.fromkeys(contexts, 0)
            self._plan = None

    def drop_rows(self, rows: Collection[int]) -> None:
        for size in list(self._rows):
            _drop(self._rows, size, rows)
        for row in rows:
            del self._context[row], self._before[row]
        self._plan = None

    def make_room(self) -> None:
        """Rows whose slots are full move to larger ones, as has to be before a step; it may change their order."""
        for size, shelf in list(self._rows.items()):
            full = [slot for slot, row in enumerate(shelf.holders) if self._before[row] == size]
            if full:
                self._plan = None
                shelf.hand_over(full, self._rows.setdefault(2 * size, Shelf(2 * size)))
                _drop(self._rows, size, ())

    def step(self, token_R: Tensor) -> Tensor:
        """The next token of each row, in `order`. → Hidden states `[R, H]`."""
        order = self.order
        plan = self._plan = self._plan or self._planned(order)
        before = np.array([self._before[row] for row in order])
        for row in order:
            self._before[row] += 1
        positions = torch.from_numpy(plan.context_R + before).to(self._device)
        with attending(replace(plan, before_R=before, kept={})):
            return self._run(token_R, positions)

    def _planned(self, order: Sequence[int]) -> _Step:
        """What does not change before a row begins, ends or moves."""
        first, own = 0, []
        for shelf in self._rows.values():
            own.append(_Own(shelf=shelf, first=first, last=first + len(shelf.holders)))
            first = own[-1].last
        asking: dict[int, list[int]] = {name: [] for name in self._place}
        for place, row in enumerate(order):
            asking[self._context[row]].append(place)
        back, offset, shared = np.empty(len(order), dtype=np.int64), 0, []
        for shelf in self._contexts.values():
            m = max(len(asking[name]) for name in shelf.holders)
            if not m:
                continue
            rows = np.zeros((len(shelf.holders), m), dtype=np.int64)
            for slot, name in enumerate(shelf.holders):
                places = asking[name]
                rows[slot, : len(places)] = places
                back[places] = offset + slot * m + np.arange(len(places))
            offset += rows.size
            shared.append(_Shared(shelf=shelf, row_Cm=rows, length_C=np.array([self._place[name][1] for name in shelf.holders])))
        context_R = np.array([self._place[self._context[row]][1] for row in order])
        return _Step(shared, own, torch.from_numpy(back).to(self._device), context_R, np.empty(0, dtype=np.int64))


def _drop(shelves: dict[int, Shelf], size: int, holders: Collection[int]) -> None:
    shelf = shelves[size]
    shelf.drop([slot for slot, holder in enumerate(shelf.holders) if holder in holders])
    if not shelf.holders:
        del shelves[size]
