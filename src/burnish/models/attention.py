"""Tree attention: every token attends to its ancestors and, causally, to its own node.

Registered with `transformers.AttentionInterface` as ``"tree"``, together with a mask function that builds no mask: it
hands the layout of the current tree to the layers in the mask's place, with the sliding window of the layers that have
one. So it is an argument of each layer, and recomputation under gradient checkpointing sees it too. Outside
`tree_layout` (a user's `model.generate`, say) the same implementation computes ordinary attention.

Backends, equal to each other by law *tree*: ``sdpa`` (one scaled-dot-product call per node), on GPU ``varlen`` (FlashAttention's kernel for
rows of varying lengths) and, for what it does not do, ``flex`` (FlexAttention's block masks); ``dense`` (one `[T, T]` mask; anywhere, for
comparison).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.models import varlen
from burnish.types import Node, TokenTree

NAME = "tree"
BLOCK = 128
"""Tokens of a block of FlexAttention's masks."""


class TreeAttentionError(ValueError):
    """A layer asks for something that tree attention does not do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a layer asks for beside its queries, keys and values."""

    scaling: float
    dropout: float = 0.0
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        return self.softcap is None and self.sinks is None


class Attending(ABC):
    """What the layers are handed in a mask's place, to attend with."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Of the flat row that it is for."""

    @abstractmethod
    def windowed(self, window: int) -> Attending:
        """The same, where keys further back than `window` are not seen."""

    @abstractmethod
    def attend(self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        """query, key, value `[1, heads, T, D]` of the layer's attention `module` → `[1, heads, T, D]`."""


@dataclass(slots=True)
class Layout(Attending):
    """The shape of one tree, and the masks made from it (kept, since every layer asks for the same ones)."""

    nodes: tuple[Node, ...]
    position_T: Tensor
    backend: str | None
    """None: the best that can do what a layer asks."""
    window: int | None = None
    """Keys further back than this are not seen; None: all are."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """Shared by the copies for each window."""

    @property
    def tokens(self) -> int:
        return len(self.position_T)

    def windowed(self, window: int) -> Layout:
        return replace(self, window=window)

    def attend(self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        return BACKENDS[self.backend or _best(query, value, options)](query, key, value, self, options)

    def ancestors(self, node: int) -> list[int]:
        """From the root down, without the node itself."""
        chain: list[int] = []
        while (node := self.nodes[node].parent) >= 0:
            chain.insert(0, node)
        return chain

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        full = (self.window, key)
        if full not in self.kept:
            self.kept[full] = make()
        return self.kept[full]

    def sees(self) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of two token indices (broadcast): may the first attend to the second?"""
        lengths = torch.tensor([node.end - node.start for node in self.nodes])
        position_T, window = self.position_T, self.window
        node_T = torch.arange(len(self.nodes)).repeat_interleave(lengths).to(position_T.device)
        family = self.family().to(position_T.device)

        def rule(q: Tensor, k: Tensor) -> Tensor:
            seen = family[node_T[q], node_T[k]] & (k <= q)
            return seen if window is None else seen & (position_T[q] - position_T[k] < window)

        return rule

    def family(self) -> Tensor:
        """`[nodes, nodes]`, True where the column is the row or one of its ancestors."""
        family = torch.eye(len(self.nodes), dtype=torch.bool)
        for i, node in enumerate(self.nodes):
            if node.parent >= 0:
                family[i] |= family[node.parent]
        return family

    def dense_mask(self) -> Tensor:
        """`[T, T]`, True where the row may see the column."""
        at = torch.arange(len(self.position_T), device=self.position_T.device)
        return self.sees()(at[:, None], at[None, :])


_current: ContextVar[Attending | None] = ContextVar("burnish_tree_layout", default=None)


@contextmanager
def attending(layout: Attending) -> Iterator[None]:
    """Model calls inside attend with `layout`."""
    token = _current.set(layout)
    try:
        yield
    finally:
        _current.reset(token)


def layout_of(nodes: tuple[Node, ...], position_T: Tensor, backend: str | None = None) -> Layout:
    return Layout(nodes=nodes, position_T=position_T, backend=backend)


def tree_layout(tree: TokenTree, backend: str | None = None) -> AbstractContextManager[None]:
    """Model calls inside see `tree`."""
    return attending(layout_of(tree.nodes, tree.position_T, backend))


def _tree_mask(*, q_length: int, local_size: int | None = None, **kwargs: Any) -> Attending | Tensor | None:
    layout = _current.get()
    if layout is None:
        from transformers.masking_utils import sdpa_mask

        plain: dict[str, Any] = {**kwargs, "allow_is_causal_skip": False} | ({} if local_size is None else {"local_size": local_size})
        return sdpa_mask(q_length=q_length, **plain)
    if q_length != layout.tokens:
        raise TreeAttentionError(f"The model sees {q_length} tokens where the tree has {layout.tokens}; run it branch by branch.")
    return layout if local_size is None else layout.windowed(local_size)


def _tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Attending | Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query, key, value `[1, heads, T, D]` → `[1, T, heads, D]`. `softcap` bounds the scores; `s_aux` holds one sink per head."""
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    query, key, value = as_computed(query, key, value)
    options = Options(scaling=scaling, dropout=dropout, softcap=softcap, sinks=s_aux)
    if isinstance(attention_mask, Attending):
        if len(query) != 1:
            raise TreeAttentionError(f"A token tree is one row, and the model's attention sees {len(query)}; run it branch by branch.")
        out = attention_mask.attend(module, query, key, value, options)
    else:
        mask = attention_mask
        if mask is None and query.shape[2] > 1:
            mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(key.shape[2] - query.shape[2])
        out = _masked(query, key, value, mask, options)
    return out.transpose(1, 2).contiguous(), None


def as_computed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's dtype where it is on: a layer's norms may leave its queries and keys in float32, and its products are not."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(one.to(torch.get_autocast_dtype(device)) for one in tensors)


def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Options, *, causal: bool = False) -> Tensor:
    """Attention under a boolean mask (broadcast to `[.., Q, K]`), or causal and square, with soft cap and sinks where asked."""
    grouped = query.shape[1] != key.shape[1]
    if options.plain:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, dropout_p=options.dropout, scale=options.scaling, enable_gqa=grouped
        )
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    if grouped:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.transpose(2, 3) * options.scaling
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if options.sinks is not None:
        sinks = options.sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)
        scores = torch.cat([scores, sinks], -1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)[..., : key.shape[2]]
    return F.dropout(weights, options.dropout) @ value if options.dropout else weights @ value


def _best(query: Tensor, value: Tensor, options: Options) -> str:
    """Float32 is left to calls per node: compiled kernels are for long trainings, and those are in half precision."""
    if not query.is_cuda or options.dropout or query.dtype in {torch.float32, torch.float64}:
        return "sdpa"
    return "varlen" if options.plain and varlen.can_run(query, value) else "flex"


def _by_node(query: Tensor, key: Tensor, value: Tensor, layout: Layout, options: Options) -> Tensor:
    """One call per node, over its ancestors' keys and its own. Roots inside their window need no mask at all."""
    outs = []
    for i, node in enumerate(layout.nodes):
        own = slice(node.start, node.end)
        if node.parent < 0 and (layout.window is None or node.end - node.start <= layout.window):
            outs.append(_masked(query[:, :, own], key[:, :, own], value[:, :, own], None, options, causal=True))
            continue
        spans = [slice(layout.nodes[a].start, layout.nodes[a].end) for a in (*layout.ancestors(i), i)]
        mask = layout.keep(i, partial(_node_mask, layout, spans, own))
        seen_key = torch.cat([key[:, :, s] for s in spans], 2)
        seen_value = torch.cat([value[:, :, s] for s in spans], 2)
        outs.append(_masked(query[:, :, own], seen_key, seen_value, mask, options))
    return torch.cat(outs, 2)


def _node_mask(layout: Layout, spans: list[slice], own: slice) -> Tensor:
    """`[own tokens, ancestors' tokens + own]`."""
    ancestors = torch.cat([layout.position_T[s] for s in spans])
    ahead = ancestors[None, :] - layout.position_T[own][:, None]
    mask = ahead <= 0
    return mask if layout.window is None else mask & (ahead > -layout.window)


def _dense(query: Tensor, key: Tensor, value: Tensor, layout: Layout, options: Options) -> Tensor:
    return _masked(query, key, value, layout.keep("dense", layout.dense_mask), options)


def _flex(query: Tensor, key: Tensor, value: Tensor, layout: Layout, options: Options) -> Tensor:
    if options.dropout:
        raise TreeAttentionError("FlexAttention has no dropout; set disable_dropout=True.")
    block_mask = layout.keep("flex", lambda: _block_mask(layout))
    softcap = options.softcap

    def cap(score: Tensor, *_: Tensor) -> Tensor:
        return score if softcap is None else softcap * torch.tanh(score / softcap)

    kernel = _flex_kernel(query.device.type)
    more: dict[str, Any] = {"block_mask": block_mask, "scale": options.scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if softcap is not None:
        more["score_mod"] = cap
    if options.sinks is None:
        return kernel(query, key, value, **more)
    from torch.nn.attention.flex_attention import AuxRequest

    out, aux = kernel(query, key, value, return_aux=AuxRequest(lse=True), **more)
    # a sink only adds exp(sink) to the softmax's denominator
    return out * torch.sigmoid(aux.lse - options.sinks.to(aux.lse.dtype)[None, :, None])[..., None].to(out.dtype)


def _block_mask(layout: Layout) -> Any:
    """From the nodes that blocks of tokens hold, and not from a mask of `[T, T]`. A block that need not be looked at can be among them."""
    from torch.nn.attention.flex_attention import BlockMask

    sees, T = layout.sees(), layout.tokens
    starts = torch.arange(0, T, BLOCK)
    first, last = torch.tensor([(node.start, node.end) for node in layout.nodes]).T
    holds = ((first < starts[:, None] + BLOCK) & (last > starts[:, None])).float()  # [blocks, nodes]
    family = layout.family().float()
    some, whole = holds @ family @ holds.T > 0, holds @ (1 - family) @ holds.T == 0
    if layout.window is not None:
        spread = [torch.stack(torch.aminmax(block)) for block in layout.position_T.cpu().split(BLOCK)]
        low, high = torch.stack(spread, 1)
        some, whole = some & (low[:, None] - high < layout.window), whole & (high[:, None] - low < layout.window)
    whole = whole.tril(-1) & (starts + BLOCK <= T)[:, None]
    listed = (_listed(blocks[None, None].to(layout.position_T.device)) for blocks in (some.tril() & ~whole, whole))
    (partly, where), (wholly, there) = listed
    return BlockMask.from_kv_blocks(
        partly, where, wholly, there, BLOCK_SIZE=BLOCK, mask_mod=lambda b, h, q, k: sees(q, k), seq_lengths=(T, T)
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of a boolean matrix: how many are true, and the columns, those first."""
    return blocks.sum(-1, dtype=torch.int32), torch.argsort(~blocks, dim=-1, stable=True).to(torch.int32)


@cache
def _flex_kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


def _varlen(query: Tensor, key: Tensor, value: Tensor, layout: Layout, options: Options) -> Tensor:
    spans = layout.keep("varlen", lambda: varlen.spans_of(layout.nodes, query.device))
    return varlen.attend(query, key, value, spans, options.scaling, layout.window)


Backend = Callable[[Tensor, Tensor, Tensor, Layout, Options], Tensor]
BACKENDS: dict[str, Backend] = {"sdpa": _by_node, "dense": _dense, "varlen": _varlen, "flex": _flex}


def register() -> None:
    """Makes ``attn_implementation="tree"`` known to transformers. Calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _tree_attention)
    AttentionMaskInterface.register(NAME, _tree_mask)
