"""From logits to a token: the distribution that is asked for, and one uniform number through its inverse.

The order is that of transformers' logits processors: repetition penalty (Keskar et al. 2019, CTRL, section 4.1), temperature, top-k (Fan
et al. 2018), top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024). The vocabulary is walked in blocks, so that finding the token whose
interval holds the uniform costs one pass; it is never sorted: top-k and top-p look at the most likely tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256
"""Tokens whose probabilities are summed before the block that holds the uniform is looked into."""
NUCLEUS = 256
"""Tokens among which top-p's are sought first; eight times as many where they are not enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is made of the policy's distribution before a token is drawn."""

    temperature: float = 1.0
    """0: the most likely token, whatever the uniform."""
    top_k: int = 0
    """Tokens as likely as the k-th or more; 0: all."""
    top_p: float = 1.0
    """The most likely tokens up to the one with which they have this probability."""
    min_p: float = 0.0
    """Tokens with at least this share of the most likely one's probability."""
    repetition_penalty: float = 1.0
    """Logits of tokens seen are divided by it where positive, and multiplied where negative."""

    @property
    def changed(self) -> bool:
        """Whether the distribution is another one than the policy's at the temperature."""
        return bool(self.top_k) or self.top_p < 1 or self.min_p > 0 or self.repetition_penalty != 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One token for each of R rows."""

    token_R: Tensor
    logp_R: Tensor
    """Under the policy at the temperature (at 1 where that is 0), as in `ops.logprobs`."""
    sampled_logp_R: Tensor | None
    """Under the distribution that it was drawn from; None where that is the policy's own. Of the most likely token, which is certain, 0."""


def draw(logits_RV: Tensor, uniform_R: Tensor, shape: Shape, seen_RV: Tensor | None = None) -> Draw:
    """Draws a token of each row.

    `logits_RV` are in float32 at least, without temperature, and are overwritten. `uniform_R` is float64, above 0 and below 1.
    `seen_RV` (bool) says which tokens the repetition penalty is for.
    """
    z = logits_RV if shape.temperature in (0, 1) else logits_RV.div_(shape.temperature)
    y = z if seen_RV is None or shape.repetition_penalty == 1 else _penalised(z, seen_RV, shape.repetition_penalty)
    highest = z.amax(1, keepdim=True)
    if shape.temperature == 0 or y is not z:  # a token may be chosen that is too unlikely for `p` to hold
        p = torch.sub(z, highest).exp_()
        sums = _block_sums(p)
        token, sampled = (y.argmax(1), None) if shape.temperature == 0 else _drawn(_relative(y), uniform_R, shape)
        logp = z.gather(1, token[:, None])[:, 0] - highest[:, 0] - sums.sum(1).log()
    else:
        p = z.sub_(highest).exp_()
        sums = _block_sums(p)
        token, sampled = _drawn(p, uniform_R, shape, sums)
        logp = p.gather(1, token[:, None])[:, 0].log() - sums.sum(1).log()
    if shape.changed:
        sampled = torch.zeros_like(logp) if sampled is None else sampled
    return Draw(token_R=token, logp_R=logp.to(z.dtype), sampled_logp_R=None if sampled is None else sampled.to(z.dtype))


def _penalised(z: Tensor, seen: Tensor, penalty: float) -> Tensor:
    return torch.where(seen, torch.where(z > 0, z / penalty, z * penalty), z)


def _relative(y: Tensor) -> Tensor:
    """Probabilities relative to the highest, in place."""
    return y.sub_(y.amax(1, keepdim=True)).exp_()


def _drawn(p: Tensor, uniform: Tensor, shape: Shape, sums: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """From probabilities relative to the highest: (token, its log-prob under what is left of them, None where all is).

    `sums` are their `_block_sums`, where these are known.
    """
    if shape.top_k or shape.top_p < 1:
        return _of_the_likeliest(p, uniform, shape)
    if shape.min_p:
        p, sums = p.masked_fill(p < shape.min_p, 0), None
    sums = _block_sums(p) if sums is None else sums
    token = _invert(p, sums, uniform)
    return token, p.gather(1, token[:, None])[:, 0].log() - sums.sum(1).log() if shape.changed else None


def _of_the_likeliest(p: Tensor, uniform: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """With top-k or top-p."""
    value, index = _likeliest(p, shape.top_k) if shape.top_k else _nucleus(p, shape.top_p)
    if shape.top_p < 1:
        whole = value.sum(1, keepdim=True) if shape.top_k else _block_sums(p).sum(1, keepdim=True)
        value = value.masked_fill(value.cumsum(1) - value >= shape.top_p * whole, 0)
    value = value.masked_fill(value < shape.min_p, 0)
    cumulative = value.cumsum(1)
    place = _first_above(cumulative, uniform * cumulative[:, -1])[:, None]
    return index.gather(1, place)[:, 0], (value.gather(1, place) / cumulative[:, -1:]).log()[:, 0]


def _likeliest(p: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest in order, in float64, and of which tokens they are; with those that equal the k-th."""
    if k >= p.shape[1]:
        value, index = p.sort(1, descending=True)
        return value.double(), index
    value, index = p.topk(k + 1)
    kth = value[:, k - 1 : k]
    if ((value[:, k:] == kth) & (kth > 0)).any():
        value, index = p.topk(int(((p >= kth) & (kth > 0)).sum(1).max()))
    return value.masked_fill(value < kth, 0).double(), index


def _nucleus(p: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """At least as many of the highest in order, in float64, as have the probability `top_p`, and of which tokens they are."""
    enough, k = top_p * _block_sums(p).sum(1), min(NUCLEUS, p.shape[1])
    top, index = p.topk(k)
    value = top.double()
    while k < p.shape[1]:
        short = (value.sum(1) < enough).nonzero()[:, 0]
        if not len(short):
            break
        k = min(8 * k, p.shape[1])
        value, index = (F.pad(one, (0, k - one.shape[1])) for one in (value, index))
        top, index[short] = p[short].topk(k)
        value[short] = top.double()
    return value, index


def _block_sums(p: Tensor) -> Tensor:
    """`[R, blocks]`, float64; the last block may be shorter."""
    whole = p.shape[1] // BLOCK * BLOCK
    sums = p[:, :whole].unflatten(1, (-1, BLOCK)).sum(2) if whole else p[:, :0]
    return (sums if whole == p.shape[1] else torch.cat([sums, p[:, whole:].sum(1, keepdim=True)], 1)).double()


def _invert(p: Tensor, sums: Tensor, uniform: Tensor) -> Tensor:
    """The token whose interval of the cumulative distribution holds the uniform: first its block, then its place in it."""
    cumulative = sums.cumsum(1)
    target = uniform * cumulative[:, -1]
    block = _first_above(cumulative, target)[:, None]
    size, end = sums.gather(1, block), cumulative.gather(1, block)
    at = block * BLOCK + torch.arange(BLOCK, device=p.device)
    inside = p.gather(1, at.clamp(max=p.shape[1] - 1)).double().masked_fill_(at >= p.shape[1], 0).cumsum(1)
    # the block's sum in float32 and in float64 differ in their last bits: the target is moved as they do
    share = (target[:, None] - (end - size)) / size * inside[:, -1:]
    return block[:, 0] * BLOCK + _first_above(inside, share[:, 0])


def _first_above(cumulative: Tensor, target_R: Tensor) -> Tensor:
    """The first place whose cumulative value is above the target; at most the last that adds something."""
    return torch.minimum((cumulative <= target_R[:, None]).sum(1), (cumulative < cumulative[:, -1:]).sum(1))
