"""How likely tokens are under the policy beside the one that drew them: ratios to learn by, and weights that correct a sampler.

Throughout, per token or per completion::

    logp          log π, the policy that learns
    old_logp      log π_old, the same policy as it was when it sampled, by the trainer's own arithmetic; without gradient
    sampled_logp  log μ, of the distribution that tokens were really drawn from: a server's, or a truncated one; without gradient
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.ops.divergences import EXPONENT_LIMIT
from burnish.ops.reduce import per_branch


def ratio(log_ratio: Tensor) -> Tensor:
    """``exp``, and above 16 nats its tangent: always finite, with a finite gradient, where ``0 · exp(100)`` would be a NaN. Any shape."""
    return log_ratio.clamp(max=EXPONENT_LIMIT).exp() + math.exp(EXPONENT_LIMIT) * F.relu(log_ratio - EXPONENT_LIMIT)


def branch_mean(value_N: Tensor, branch_N: Tensor, tokens_B: Tensor) -> Tensor:
    """The mean over each branch's tokens: `[B]`, 0 for a branch without any."""
    return per_branch(value_N, branch_N, len(tokens_B)) / tokens_B.clamp(min=1)


def token_log_ratio(log_ratio_N: Tensor, branch_N: Tensor, tokens_B: Tensor) -> Tensor:
    """Each token's own: PPO's and GRPO's."""
    return log_ratio_N


def sequence_log_ratio(log_ratio_N: Tensor, branch_N: Tensor, tokens_B: Tensor) -> Tensor:
    """``(1/|y|) log π(y)/π_old(y)``, the same for all tokens of a completion (GSPO, Zheng et al. 2025, arXiv:2507.18071, eq. 7)."""
    return branch_mean(log_ratio_N, branch_N, tokens_B)[branch_N]


def sequence_token_log_ratio(log_ratio_N: Tensor, branch_N: Tensor, tokens_B: Tensor) -> Tensor:
    """GSPO-token (arXiv:2507.18071, eq. 14): the value of the completion's ratio, and each token's own gradient.

    Where all tokens of a completion have one advantage, the mean over its tokens has the gradient of GSPO. TRL 1.16 has none.
    """
    return sequence_log_ratio(log_ratio_N, branch_N, tokens_B).detach() + (log_ratio_N - log_ratio_N.detach())


LEVELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "token": token_log_ratio,
    "sequence": sequence_log_ratio,
    "sequence_token": sequence_token_log_ratio,
}
"""TRL's `importance_sampling_level` → function from log-ratios `[N]`, `branch_N` and `tokens_B` to log-ratios `[N]`."""

CORRECTIONS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
"""TRL's `vllm_importance_sampling_mode`."""


def importance_weights(
    old_logp_N: Tensor, sampled_logp_N: Tensor, branch_N: Tensor, tokens_B: Tensor, *,
    mode: str = "sequence_mask", clip_max: float | None = 3.0, clip_min: float | None = None,
) -> Tensor:  # fmt: skip
    """``π_old/μ`` of each token, or of its whole completion: the weight of its loss, `[N]`, without gradient.

    Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training") brings
    a ratio outside the bounds to the bound, masked importance sampling (Liu et al. 2025, "When speed kills stability") drops it: its
    weight is 0. A token whose `sampled_logp_N` is NaN, because the sampler gave none, has a ratio of 1. `sequence_*`: the product
    over the completion's trained tokens. Raises ValueError for an unknown mode, and for bounds that contradict each other.
    """
    if mode not in CORRECTIONS:
        raise ValueError(f"The importance-sampling mode is {mode!r}; choose one of {', '.join(CORRECTIONS)}.")
    low, high = -math.inf if clip_min is None else clip_min, math.inf if clip_max is None else clip_max
    if not low < high:
        raise ValueError(f"The importance-sampling weight is to lie between {low} and {high}; choose a clip_min below clip_max.")
    log_ratio_N = (old_logp_N - sampled_logp_N).detach().nan_to_num(nan=0.0)
    if mode.startswith("sequence"):
        log_ratio_N = per_branch(log_ratio_N, branch_N, len(tokens_B))[branch_N]
    weight_N = ratio(log_ratio_N)
    outside_N = (weight_N < low) | (weight_N > high)
    return weight_N.masked_fill(outside_N, 0.0) if mode.endswith("mask") else weight_N.clamp(min=low, max=high)


def off_policy_mask(
    advantage_N: Tensor, logp_N: Tensor, sampled_logp_N: Tensor, branch_N: Tensor, tokens_B: Tensor, *, threshold: float
) -> Tensor:
    """DeepSeek-V3.2's off-policy sequence mask (arXiv:2512.02556, eq. 9): `[N]`, boolean, True for tokens that learn.

    Dropped is what has a negative advantage in a completion whose mean ``log μ - log π`` over its tokens is above `threshold` (nats).
    `sampled_logp_N` is of the distribution really sampled from where that is known; a NaN in it counts as no difference.
    """
    gap_N = (sampled_logp_N - logp_N).detach().nan_to_num(nan=0.0)
    near_B = branch_mean(gap_N, branch_N, tokens_B) <= threshold
    return (advantage_N >= 0) | near_B[branch_N]


def logp_gap(logp_N: Tensor, sampled_logp_N: Tensor) -> Tensor:
    """``|log π - log μ|`` of each token, `[N]`, without gradient; 0 where the sampler gave no log-prob."""
    return (logp_N - sampled_logp_N).detach().abs().nan_to_num(nan=0.0)


def effective_sample_size(weight_N: Tensor) -> Tensor:
    """``(Σ w)² / (n Σ w²)`` (Kong 1992): 1 where all weights are alike, 1/n where one has it all. A scalar without gradient."""
    weight_N = weight_N.detach().double()
    return weight_N.sum().square() / (len(weight_N) * weight_N.square().sum()).clamp(min=torch.finfo(torch.float64).tiny)
