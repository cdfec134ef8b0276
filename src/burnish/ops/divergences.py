"""Scores of a completion under an f-divergence: ``f'(u)`` at ``u = π/π_ref``, from ``log u``.

DPO with another divergence than the reverse KL replaces each log-ratio by ``f'(u)`` (f-DPO, Wang et al. 2023, arXiv:2309.16240,
Table 1). Constants are left out: they cancel in the difference of two scores, which is all that a loss may use.

Where paper and TRL 1.16 differ: the paper's α-divergence has ``f'(u) = (1 - u^-α) / α``, which is the reverse KL as α → 0 and the
forward KL at α = 1. TRL 1.16 has ``(u^(α-1) - 1) / (α-1)``, the paper's with 1 - α in the place of α; the two agree at the default 1/2.
`alpha_divergence` is the paper's, `alpha_divergence_as_in_trl` is TRL's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, expm1

Divergence = Callable[[Tensor], Tensor]
"""From log-ratios of any shape, in nats, to scores of the same shape."""

EXPONENT_LIMIT = 16.0
"""`box_cox` is exact up to here, and its tangent beyond. Low enough that IPO, the square of it, still has a gradient with a squared
norm within float32 at log-ratios of 10,000; high enough that only a completion nine million times less likely gets there."""


def box_cox(log_u: Tensor, power: float) -> Tensor:
    """The Box-Cox transform ``(u^power - 1) / power``, and ``log u`` at power 0; any shape in, the same out.

    Where ``power · log u`` is above 16 it goes on as a straight line: finite, still rising, and with a gradient, where a clamp
    would leave the pairs that are furthest off without one. TRL 1.16 clamps its α-divergence at 80, and its forward KL nowhere.
    """
    if power == 0:
        return log_u
    exponent = power * log_u
    beyond = math.exp(EXPONENT_LIMIT) * F.relu(exponent - EXPONENT_LIMIT)
    return (expm1(exponent.clamp(max=EXPONENT_LIMIT)) + beyond) / power


def reverse_kl(log_u: Tensor) -> Tensor:
    """``f(u) = u log u``, ``f'(u) = log u`` (+ 1): plain DPO."""
    return log_u


def forward_kl(log_u: Tensor) -> Tensor:
    """``f(u) = -log u``, ``f'(u) = -1/u`` (+ 1)."""
    return box_cox(log_u, -1.0)


def js_divergence(log_u: Tensor) -> Tensor:
    """Jensen-Shannon: ``f'(u) = log(2u / (1 + u)) = log 2 + log σ(log u)``."""
    return math.log(2.0) + F.logsigmoid(log_u)


def alpha_divergence(log_u: Tensor, *, f_alpha_divergence_coef: float = 0.5) -> Tensor:
    """``f'(u) = (1 - u^-α) / α``, as in the paper: from the reverse KL at α = 0 to the forward KL at α = 1."""
    return box_cox(log_u, -f_alpha_divergence_coef)


def alpha_divergence_as_in_trl(log_u: Tensor, *, f_alpha_divergence_coef: float = 0.5) -> Tensor:
    """``f'(u) = (u^(α-1) - 1) / (α-1)``, as in TRL 1.16: from the forward KL at α = 0 to the reverse KL at α = 1."""
    return box_cox(log_u, f_alpha_divergence_coef - 1.0)


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "js_divergence": js_divergence,
    "alpha_divergence": alpha_divergence,
}
"""TRL's `f_divergence_type` → score. `alpha_divergence` alone has an option; bind it with `functools.partial`."""

DIVERGENCES_AS_IN_TRL: dict[str, Callable[..., Tensor]] = {"alpha_divergence": alpha_divergence_as_in_trl}
"""Those that TRL 1.16 defines otherwise than the paper, as TRL does."""
