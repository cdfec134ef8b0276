"""Log-probabilities of chosen tokens from hidden states, without ever holding `[N, V]` logits.

The vocabulary projection is walked in chunks of rows. The forward keeps one log-sum-exp per token; the backward
recomputes each chunk's logits. With the softmax p of logits z, target t and entropy H = -Σ p_j log p_j:

    ∂ logp / ∂z_j = [j = t] - p_j            ∂ H / ∂z_j = -p_j (log p_j + H)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 2**23, "cuda": 2**26}
"""Logits held at once (float32), by device type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A vocabulary projection: ``z = softcap(scale * (Σ_i x_i @ w_i.T + bias)) / temperature``.

    More than one factor makes a low-rank adapter on the head: ``x_2 = (alpha / r) * dropout(hidden) @ A.T``, ``w_2 = B``.
    """

    inputs: Sequence[Tensor]
    """Each `[N, K_i]`."""
    weights: Sequence[Tensor]
    """Each `[V, K_i]`."""
    bias: Tensor | None = None
    """`[V]`."""
    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class _Shape:
    scale: float
    softcap: float | None
    temperature: float
    rows: int
    has_bias: bool = field(default=False)
    sum_sq: bool = field(default=False)


def _buffers(targets: Tensor, weights: Sequence[Tensor], shape: _Shape) -> tuple[Tensor, Tensor]:
    """Two `[rows, V]` tensors that all chunks share: fresh ones for each would cost as much as the arithmetic on them."""
    dtype = torch.promote_types(weights[0].dtype, torch.float32)
    size = (min(shape.rows, len(targets)), len(weights[0]))
    return torch.empty(size, dtype=dtype, device=targets.device), torch.empty(size, dtype=dtype, device=targets.device)


def _logits(inputs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None, shape: _Shape, out: Tensor) -> Tensor:
    """One chunk's logits, written into `out`, in at least float32."""
    z = out[: len(inputs[0])]
    if inputs[0].dtype == z.dtype:
        torch.mm(inputs[0], weights[0].t(), out=z)
    else:
        z.copy_(inputs[0] @ weights[0].t())
    for x, w in zip(inputs[1:], weights[1:], strict=True):
        z += x @ w.t()
    return _finish(z, bias, shape)


def _finish(z: Tensor, bias: Tensor | None, shape: _Shape) -> Tensor:
    """From projections to logits, in place."""
    if bias is not None:
        z += bias
    if shape.scale != 1.0:
        z *= shape.scale
    if shape.softcap is not None:
        z.div_(shape.softcap).tanh_().mul_(shape.softcap)
    if shape.temperature != 1.0:
        z /= shape.temperature
    return z


def _logits_gradient(z: Tensor, grad_z: Tensor, shape: _Shape) -> Tensor:
    """Turns ∂/∂z into ∂/∂(projection), in place: undoes temperature, soft cap and scale."""
    if shape.softcap is not None:
        grad_z *= 1 - (z * (shape.temperature / shape.softcap)).square_()
    return grad_z.mul_(shape.scale / shape.temperature)


def _chunks(n: int, rows: int) -> Iterator[slice]:
    return (slice(i, min(i + rows, n)) for i in range(0, n, rows))


class _ChunkedLogprobs(torch.autograd.Function):
    """(targets [N], shape, bias, *inputs, *weights) -> (logp [N], entropy [N], top1 [N], log Σ p² [N], where asked for)."""

    @staticmethod
    def forward(ctx, targets, shape, bias, *factors):
        half = len(factors) // 2
        inputs, weights = factors[:half], factors[half:]
        dtype = torch.promote_types(inputs[0].dtype, torch.float32)
        logp, lse, entropy, top1 = (torch.empty(len(targets), dtype=dtype, device=targets.device) for _ in range(4))
        sum_sq = torch.empty(len(targets) if shape.sum_sq else 0, dtype=dtype, device=targets.device)
        buffer, scratch = _buffers(targets, weights, shape)
        for s in _chunks(len(targets), shape.rows):
            z = _logits([x[s] for x in inputs], weights, bias, shape, buffer)
            chosen, highest = z.gather(1, targets[s, None])[:, 0], z.amax(1)
            p = torch.sub(z, highest[:, None], out=scratch[: len(z)]).exp_()
            total = p.sum(1)
            lse[s] = highest + total.log()
            logp[s] = chosen - lse[s]
            top1[s] = (chosen >= highest).to(dtype)
            entropy[s] = lse[s] - torch.linalg.vecdot(p, z) / total
            if shape.sum_sq:
                sum_sq[s] = torch.linalg.vecdot(p, p).log() - 2 * total.log()
        ctx.save_for_backward(targets, lse, entropy, *((bias,) if shape.has_bias else ()), *factors)
        ctx.shape = shape
        ctx.mark_non_differentiable(top1, sum_sq)
        ctx.set_materialize_grads(False)
        return logp, entropy, top1, sum_sq

    @staticmethod
    def backward(ctx, grad_logp, grad_entropy, *_):
        if grad_logp is None and grad_entropy is None:
            return (None,) * len(ctx.needs_input_grad)
        targets, lse, entropy, *factors = ctx.saved_tensors
        shape: _Shape = ctx.shape
        bias = factors.pop(0) if shape.has_bias else None
        half = len(factors) // 2
        inputs, weights = factors[:half], factors[half:]
        needed = ctx.needs_input_grad[2:]
        grad_bias = torch.zeros_like(bias) if bias is not None and needed[0] else None
        grads: list[Tensor | None] = [
            torch.zeros(t.shape, dtype=lse.dtype, device=t.device) if n else None for t, n in zip(factors, needed[1:], strict=True)
        ]
        buffer, scratch = _buffers(targets, weights, shape)
        for s in _chunks(len(targets), shape.rows):
            z = _logits([x[s] for x in inputs], weights, bias, shape, buffer)
            log_p = torch.sub(z, lse[s, None], out=scratch[: len(z)])
            d = _grad_z(log_p, entropy[s], targets[s], (grad_logp, grad_entropy), s)
            d = _logits_gradient(z, d, shape)
            if grad_bias is not None:
                grad_bias += d.sum(0)
            _accumulate(grads, d.to(inputs[0].dtype), inputs, weights, s)
        return None, None, grad_bias, *(g if g is None else g.to(t.dtype) for g, t in zip(grads, factors, strict=True))


def _grad_z(log_p: Tensor, entropy: Tensor, targets: Tensor, grads: tuple[Tensor | None, Tensor | None], s: slice) -> Tensor:
    """∂/∂z of one chunk, in place of `log_p`."""
    grad_logp, grad_entropy = grads
    if grad_entropy is None:
        assert grad_logp is not None
        d = log_p.exp_().mul_(-grad_logp[s, None])
    else:
        weight = grad_entropy[s, None] * (log_p + entropy[:, None])
        if grad_logp is not None:
            weight += grad_logp[s, None]
        d = log_p.exp_().mul_(weight).neg_()
    if grad_logp is not None:
        d[torch.arange(len(d), device=d.device), targets] += grad_logp[s]
    return d


def _accumulate(grads: list[Tensor | None], d: Tensor, inputs: Sequence[Tensor], weights: Sequence[Tensor], s: slice) -> None:
    for i, (x, w) in enumerate(zip(inputs, weights, strict=True)):
        grad_x, grad_w = grads[i], grads[i + len(inputs)]
        if grad_x is not None:
            grad_x[s] = d @ w
        if grad_w is not None and grad_w.dtype == d.dtype:
            grad_w.addmm_(d.t(), x[s])
        elif grad_w is not None:
            grad_w += d.t() @ x[s]


Read = tuple[Tensor, ...]
"""Log-prob of each target, entropy of its distribution (nats), 1.0 where the target is the most likely token, and, where that is asked
for, ``log Σ_v p(v)²`` without gradient: `[N]` each, in float32 at least."""


def chunked_logprobs(head: Head, targets: Tensor, *, chunk_rows: int | None = None, sum_sq: bool = False) -> Read:
    """What `head` says of each target, a chunk of rows at a time.

    `targets` is `[N]` (int64). Gradients flow from log-prob and entropy to every input, weight and bias that asks for one.
    `chunk_rows` bounds the rows projected at once (default: by device); `sum_sq` asks for ``log Σ_v p(v)²``.

    Raises ValueError when a temperature is not positive or the head's parts disagree in length.
    """
    if head.temperature <= 0:
        raise ValueError(f"The temperature is {head.temperature}; give a positive one.")
    if any(len(x) != len(targets) for x in head.inputs):
        raise ValueError(f"The head has inputs of {[len(x) for x in head.inputs]} rows for {len(targets)} targets; give one row for each.")
    vocabulary = len(head.weights[0])
    rows = chunk_rows or max(1, CHUNK_ELEMENTS.get(targets.device.type, 2**26) // vocabulary)
    shape = _Shape(head.scale, head.softcap, head.temperature, rows, head.bias is not None, sum_sq)
    dtype = head.inputs[0].dtype
    weights = [w.to(dtype) for w in head.weights]
    inputs = [x.to(dtype) for x in head.inputs]
    with torch.autocast(targets.device.type, enabled=False):
        columns = _ChunkedLogprobs.apply(targets, shape, head.bias, *inputs, *weights)
    return columns if sum_sq else columns[:3]


def head_logits(head: Head) -> Tensor:
    """What `head` says of every token, `[N, V]` in float32 at least, without gradient. Under autocast the weights' casts are its own."""
    z = F.linear(head.inputs[0], head.weights[0]).to(torch.promote_types(head.inputs[0].dtype, torch.float32))
    for x, w in zip(head.inputs[1:], head.weights[1:], strict=True):
        z += F.linear(x, w)
    return _finish(z, head.bias, _Shape(head.scale, head.softcap, head.temperature, rows=len(z)))


def dense_logprobs(logits: Tensor, targets: Tensor, *, sum_sq: bool = False) -> Read:
    """The plain way, for comparison and for logits `[N, V]` that exist already: same results as `chunked_logprobs`."""
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    logp = log_p.gather(1, targets[:, None])[:, 0]
    top1 = (logp >= log_p.amax(-1)).to(logp.dtype).detach()
    return (logp, entropy, top1, (2 * log_p).logsumexp(-1).detach()) if sum_sq else (logp, entropy, top1)
