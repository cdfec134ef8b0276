"""Tree attention by FlashAttention's kernel for rows of varying lengths, which comes with PyTorch: nothing to compile.

Every node asks with its own tokens and sees its path, that is its ancestors' keys and its own, the last of them its last: which is what
"causal" means where there are more keys than queries. Plain rows are their own paths. Elsewhere the keys of the paths are gathered, layer
by layer, and again in the backward pass, so that no layer keeps the copy. Half precision, heads of at most 256 numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from burnish.types import Node

WIDEST = 256
"""Head that the kernel takes."""
FORWARD, BACKWARD = torch.ops.aten._flash_attention_forward, torch.ops.aten._flash_attention_backward


def can_run(query: Tensor, value: Tensor) -> bool:
    width = query.shape[-1]
    half = query.dtype in {torch.bfloat16, torch.float16} and value.dtype is query.dtype
    return half and width == value.shape[-1] <= WIDEST and width % 8 == 0 and torch.cuda.get_device_capability(query.device) >= (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Where the queries and the keys of each node stand."""

    path_K: Tensor | None
    """Places in the row of all paths' tokens, one path after another; None: of the row itself."""
    query_ends: Tensor
    """int32 `[nodes + 1]`, from 0 on."""
    key_ends: Tensor
    longest: int
    longest_path: int


def spans_of(nodes: Sequence[Node], device: torch.device) -> Spans:
    paths: list[np.ndarray] = []
    for node in nodes:
        own = np.arange(node.start, node.end)
        paths.append(own if node.parent < 0 else np.concatenate([paths[node.parent], own]))
    lengths, seen = [node.end - node.start for node in nodes], [len(path) for path in paths]

    def ends(counts: list[int]) -> Tensor:
        return torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32).to(device)

    plain = all(node.parent < 0 for node in nodes)
    path = None if plain else torch.from_numpy(np.concatenate(paths)).to(device)
    return Spans(path_K=path, query_ends=ends(lengths), key_ends=ends(seen), longest=max(lengths), longest_path=max(seen))


def attend(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scaling: float, window: int | None) -> Tensor:
    """query, key, value `[1, heads, T, D]` (fewer heads of keys: grouped) → `[1, heads, T, D]`."""
    rows = (one[0].transpose(0, 1).contiguous() for one in (query, key, value))
    return _Varlen.apply(*rows, spans, scaling, window).transpose(0, 1)[None]


class _Varlen(torch.autograd.Function):
    """query, key, value `[T, heads, D]` → `[T, heads, D]`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, spans: Spans, scaling: float, window: int | None) -> Tensor:
        keys, values = (_gathered(one, spans) for one in (key, value))
        options = {"scale": scaling, "window_size_left": -1 if window is None else window - 1, "window_size_right": 0}
        sizes = (spans.query_ends, spans.key_ends, spans.longest, spans.longest_path, 0.0, window is None)
        out, lse, state, unused, _ = FORWARD(query, keys, values, *sizes, False, **options)
        ctx.save_for_backward(query, key, value, out, lse, state, unused)
        ctx.spans, ctx.sizes, ctx.options = spans, sizes, options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse, *random = ctx.saved_tensors
        keys, values = (_gathered(one, ctx.spans) for one in (key, value))
        to_query, to_keys, to_values = BACKWARD(grad.contiguous(), query, keys, values, out, lse, *ctx.sizes, *random, **ctx.options)
        return to_query, _summed(to_keys, key, ctx.spans), _summed(to_values, value, ctx.spans), None, None, None


def _gathered(one: Tensor, spans: Spans) -> Tensor:
    return one if spans.path_K is None else one[spans.path_K]


def _summed(grad: Tensor, like: Tensor, spans: Spans) -> Tensor:
    """A token's gradients of all paths that pass it, in float32: there can be hundreds."""
    if spans.path_K is None:
        return grad
    return torch.zeros_like(like, dtype=torch.float32).index_add_(0, spans.path_K, grad.float()).to(like.dtype)
