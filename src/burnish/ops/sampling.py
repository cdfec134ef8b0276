"""From logits to a token: the distribution that is asked for, and one uniform number through its inverse.

The order is that of transformers' logits processors: repetition penalty (Keskar et al. 2019, CTRL, section 4.1), temperature, top-k (Fan
et al. 2018), top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024). The vocabulary is walked in blocks, so that finding the token whose
interval holds the uniform costs one pass; it is never sorted: top-k and top-p look at the most likely tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
    p, highest = _relative(z)
    sums = _block_sums(p)
    lse = highest + sums.sum(1).log().to(z.dtype)
    y = z if seen_RV is None or shape.repetition_penalty == 1 else _penalised(z, seen_RV, shape.repetition_penalty)
    sampled = None
    if shape.temperature == 0:
        token = y.argmax(1)
        sampled = torch.zeros_like(lse) if shape.changed else None
    elif not shape.changed:
        token = _invert(p, sums, uniform_R)
    elif shape.top_k or shape.top_p < 1:
        token, sampled = _of_the_likeliest(y, uniform_R, shape)
    else:
        token, sampled = _of_all(y, uniform_R, shape)
    logp = z.gather(1, token[:, None])[:, 0] - lse
    return Draw(token_R=token, logp_R=logp, sampled_logp_R=None if sampled is None else sampled.to(logp.dtype))


def _relative(z: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities relative to the highest, and the highest logit."""
    highest = z.amax(1, keepdim=True)
    return torch.sub(z, highest).exp_(), highest[:, 0]


def _penalised(z: Tensor, seen: Tensor, penalty: float) -> Tensor:
    return torch.where(seen, torch.where(z > 0, z / penalty, z * penalty), z)


def _of_all(y: Tensor, uniform: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Without top-k and top-p: (token, its log-prob)."""
    p, highest = _relative(y)
    p.masked_fill_(p < shape.min_p, 0)
    sums = _block_sums(p)
    token = _invert(p, sums, uniform)
    return token, y.gather(1, token[:, None])[:, 0] - highest - sums.sum(1).log()


def _of_the_likeliest(y: Tensor, uniform: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """With top-k or top-p: (token, its log-prob)."""
    value, index = _likeliest(y, shape.top_k) if shape.top_k else _nucleus(y, shape.top_p)
    p = (value - value[:, :1]).double().exp_()
    if shape.top_p < 1:
        whole = p.sum(1, keepdim=True) if shape.top_k else _block_sums(_relative(y)[0]).sum(1, keepdim=True)
        p.masked_fill_(p.cumsum(1) - p >= shape.top_p * whole, 0)
    p.masked_fill_(p < shape.min_p, 0)
    cumulative = p.cumsum(1)
    place = _first_above(cumulative, uniform * cumulative[:, -1])[:, None]
    return index.gather(1, place)[:, 0], (p.gather(1, place) / cumulative[:, -1:]).log()[:, 0]


def _likeliest(y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices of the k highest, in order, and of those that equal the k-th; other places hold -inf."""
    if k >= y.shape[1]:
        return y.sort(1, descending=True)
    value, index = y.topk(k + 1)
    kth = value[:, k - 1 : k]
    if (value[:, k:] == kth).any():
        value, index = y.topk(int((y >= kth).sum(1).max()))
    return value.masked_fill(value < kth, -torch.inf), index


def _nucleus(y: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Values and indices of at least as many of the highest, in order, as have the probability `top_p`."""
    p, highest = _relative(y)
    enough, k = top_p * _block_sums(p).sum(1), NUCLEUS
    while k < y.shape[1]:
        value, index = y.topk(k)
        if ((value - highest[:, None]).double().exp_().sum(1) >= enough).all():
            return value, index
        k *= 8
    return y.sort(1, descending=True)


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
