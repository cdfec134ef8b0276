"""What clips and gates did, as sums and counts under TRL's names. Each function takes the options of the loss that it is about.

Shares are of tokens where the loss has a ratio for each token, and of completions where it has one for each completion; those that are
left out of a tree are among them. TRL's `clip_ratio/low_min` and `clip_ratio/high_max` are extremes over completions, which no sum and
count can give.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from burnish.ops.surrogates import Rollouts, completion_ratio, count, level_ratio, vespo_phi, weight
from burnish.types import Sum


def _share(value_N: Tensor, rollouts: Rollouts, *, whole: bool) -> Sum:
    mean = "sequence" if whole else "token"
    weight_N = weight(mean, rollouts.tokens_B, rollouts.branch_N)
    total = (weight_N * value_N.detach()).sum(dtype=torch.float64)  # a third of each of three tokens is one, however a step is cut
    return Sum(total=total, count=count(mean, rollouts.tokens_B[rollouts.tokens_B > 0], 1))


def _clips(ratio_N: Tensor, rollouts: Rollouts, low: float, high: float, *, whole: bool) -> dict[str, Sum]:
    """``low_mean``: kept from falling further; ``high_mean``: from rising further; ``region_mean``: either."""
    low_N = (ratio_N < low) & (rollouts.advantage_N < 0)
    high_N = (ratio_N > high) & (rollouts.advantage_N > 0)
    sides = {"low_mean": low_N, "high_mean": high_N, "region_mean": low_N | high_N}
    return {f"clip_ratio/{side}": _share(hit_N, rollouts, whole=whole) for side, hit_N in sides.items()}


def clipped_sums(
    rollouts: Rollouts, *, epsilon: float = 0.2, epsilon_high: float | None = None, importance_sampling_level: str = "token"
) -> dict[str, Sum]:
    """Of `surrogates.clipped_loss`."""
    ratio_N, high = level_ratio(rollouts, importance_sampling_level), epsilon if epsilon_high is None else epsilon_high
    return _clips(ratio_N, rollouts, 1.0 - epsilon, 1.0 + high, whole=importance_sampling_level != "token")


def gspo_sums(rollouts: Rollouts, *, epsilon: float = 3e-4, epsilon_high: float | None = 4e-4) -> dict[str, Sum]:
    """Of `surrogates.gspo_loss`."""
    return clipped_sums(rollouts, epsilon=epsilon, epsilon_high=epsilon_high, importance_sampling_level="sequence")


def rloo_sums(rollouts: Rollouts, *, epsilon: float = 0.2, epsilon_high: float | None = None) -> dict[str, Sum]:
    """Of `surrogates.rloo_loss`."""
    high = epsilon if epsilon_high is None else epsilon_high
    return _clips(completion_ratio(rollouts), rollouts, 1.0 - epsilon, 1.0 + high, whole=True)


def gmpo_sums(rollouts: Rollouts, *, epsilon: float = 0.4, epsilon_high: float | None = None) -> dict[str, Sum]:
    """Of `surrogates.gmpo_loss`, whose bounds are of log-ratios."""
    high = epsilon if epsilon_high is None else epsilon_high
    return _clips(rollouts.log_ratio_N, rollouts, -epsilon, high, whole=False)


def cispo_sums(rollouts: Rollouts, *, epsilon_high: float, importance_sampling_level: str = "token") -> dict[str, Sum]:
    """Of `surrogates.cispo_loss`: ``cispo_clip_ratio``, where the weight is capped and the advantage positive."""
    capped_N = (level_ratio(rollouts, importance_sampling_level) > epsilon_high) & (rollouts.advantage_N > 0)
    return {"cispo_clip_ratio": _share(capped_N, rollouts, whole=importance_sampling_level != "token")}


def vespo_sums(
    rollouts: Rollouts, *, vespo_k_pos: float = 2.0, vespo_lambda_pos: float = 3.0, vespo_k_neg: float = 3.0, vespo_lambda_neg: float = 2.0
) -> dict[str, Sum]:
    """Of `surrogates.vespo_loss`: ``vespo/phi_seq_mean``, over completions."""
    phi_N = vespo_phi(
        rollouts, vespo_k_pos=vespo_k_pos, vespo_lambda_pos=vespo_lambda_pos, vespo_k_neg=vespo_k_neg, vespo_lambda_neg=vespo_lambda_neg
    )
    return {"vespo/phi_seq_mean": _share(phi_N, rollouts, whole=True)}


def no_sums(rollouts: Rollouts) -> dict[str, Sum]:
    """Of `surrogates.sapo_loss`, which clips nothing."""
    return {}


SUMS: dict[str, Callable[..., dict[str, Sum]]] = {
    "grpo": clipped_sums,
    "bnpo": clipped_sums,
    "dr_grpo": clipped_sums,
    "dapo": clipped_sums,
    "luspo": clipped_sums,
    "cispo": cispo_sums,
    "sapo": no_sums,
    "vespo": vespo_sums,
    "gspo": gspo_sums,
    "gmpo": gmpo_sums,
    "rloo": rloo_sums,
}
"""Loss → what it logs."""
