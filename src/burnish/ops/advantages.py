"""From rewards to advantages: how much better each completion is than others of its prompt. `[B]`, in float64; nothing here is a tensor
with a gradient.

Which completions belong together is said by `group_B`, integers that mean nothing but equal and different: no order, no reshape. A
completion that is not valid (its reward failed, or has nothing to say of it) has an advantage of 0 and is part of no mean; a group with
fewer than two valid completions teaches nothing, and so does one whose valid rewards are all equal: **exactly** 0.0, decided on the
rewards themselves, not on a standard deviation that may be a rounding above 0. `has_signal` says which groups teach.

Standard deviations are those of samples (divided by n - 1), and `EPS` is added to them, as in TRL 1.16. Statistics "of the batch" are over
the completions given: give those of all ranks. K, in this file alone, is the number of reward functions.

Where this differs from TRL 1.16: TRL takes groups by position, computes in float32, and a group of equal rewards keeps the rounding of its
mean divided by 1e-4. With `normalize_then_sum` or `normalize_advantages`, a group of equal rewards gets minus the batch's mean there.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-4
"""TRL's; added to a standard deviation before dividing by it."""
SCALES = ("group", "batch", "none")
"""TRL's `scale_rewards`."""


def total_reward(reward_BK: Tensor, valid_BK: Tensor, weight_K: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted sum over reward functions, of those that are valid: `[B]`, and where at least one is: `[B]`, boolean."""
    weighted_BK = torch.where(valid_BK, reward_BK.double() * weight_K.double(), 0.0)
    return weighted_BK.sum(1), valid_BK.any(1)


def _compact(group_B: Tensor) -> tuple[Tensor, int]:
    names, index_B = group_B.unique(return_inverse=True)
    return index_B, len(names)


def _sum(value_B: Tensor, index_B: Tensor, groups: int) -> Tensor:
    return value_B.new_zeros(groups).index_add(0, index_B, value_B)


def has_signal(reward_B: Tensor, group_B: Tensor, valid_B: Tensor) -> Tensor:
    """Whether the completion is valid and two valid rewards of its group differ: `[B]`, boolean."""
    index_B, groups = _compact(group_B)
    reward_B = reward_B.double()
    highest = reward_B.new_full((groups,), -torch.inf).scatter_reduce(0, index_B, reward_B.masked_fill(~valid_B, -torch.inf), "amax")
    lowest = reward_B.new_full((groups,), torch.inf).scatter_reduce(0, index_B, reward_B.masked_fill(~valid_B, torch.inf), "amin")
    return valid_B & (highest > lowest)[index_B]


def _moments(reward_B: Tensor, group_B: Tensor, valid_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and standard deviation over the valid of each completion's group: `[B]` each; the deviation of one is 0."""
    index_B, groups = _compact(group_B)
    given_B = reward_B.double().masked_fill(~valid_B, 0.0)
    count = _sum(valid_B.double(), index_B, groups)
    mean_B = (_sum(given_B, index_B, groups) / count.clamp(min=1))[index_B]
    squares = _sum((given_B - mean_B).square().masked_fill(~valid_B, 0.0), index_B, groups)
    return count[index_B], mean_B, (squares / (count - 1).clamp(min=1)).sqrt()[index_B]


def group_advantages(reward_B: Tensor, group_B: Tensor, valid_B: Tensor, *, scale_rewards: str = "group") -> Tensor:
    """``(r - mean) / (std + 1e-4)`` within each group (GRPO, Shao et al. 2024, arXiv:2402.03300, section 4.1.2). `[B]`.

    `scale_rewards` says whose standard deviation: the "group"'s, that of the whole "batch" (Lite PPO, arXiv:2508.08221), or "none"
    (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783). Raises ValueError for another.
    """
    if scale_rewards not in SCALES:
        raise ValueError(f"scale_rewards is {scale_rewards!r}; choose one of {', '.join(SCALES)}.")
    _, mean_B, std_B = _moments(reward_B, group_B, valid_B)
    centred_B = reward_B.double() - mean_B
    if scale_rewards == "batch":
        _, _, std_B = _moments(reward_B, torch.zeros_like(group_B), valid_B)
    scaled_B = centred_B if scale_rewards == "none" else centred_B / (std_B + EPS)
    return torch.where(has_signal(reward_B, group_B, valid_B), scaled_B, 0.0)


def leave_one_out(reward_B: Tensor, group_B: Tensor, valid_B: Tensor) -> Tensor:
    """``r_i - mean of the others`` (RLOO, Ahmadian et al. 2024, arXiv:2402.14740, eq. 8), which is ``(r_i - mean) n / (n - 1)``. `[B]`."""
    count_B, mean_B, _ = _moments(reward_B, group_B, valid_B)
    advantage_B = (reward_B.double() - mean_B) * count_B / (count_B - 1).clamp(min=1)
    return torch.where(has_signal(reward_B, group_B, valid_B), advantage_B, 0.0)


def normalize_advantages(advantage_B: Tensor, reward_B: Tensor, group_B: Tensor, valid_B: Tensor) -> Tensor:
    """``(A - mean) / (std + 1e-4)`` over the batch (TRL's `normalize_advantages`), of groups with two or more valid completions. `[B]`.

    A completion whose group teaches nothing stays at exactly 0.0.
    """
    count_B, _, _ = _moments(reward_B, group_B, valid_B)
    _, mean_B, std_B = _moments(advantage_B, torch.zeros_like(group_B), valid_B & (count_B > 1))
    return torch.where(has_signal(reward_B, group_B, valid_B), (advantage_B - mean_B) / (std_B + EPS), 0.0)


def normalize_then_sum(reward_BK: Tensor, group_B: Tensor, valid_BK: Tensor, weight_K: Tensor) -> Tensor:
    """GDPO (arXiv:2601.05242): each reward function is normalised within groups, their weighted sum over the batch. `[B]`.

    So a function with small differences counts as much as one with large ones. TRL's `multi_objective_aggregation`.
    """
    whole_B, scored_B = torch.zeros_like(group_B), valid_BK.any(1)
    columns = list(zip(reward_BK.double().unbind(1), valid_BK.unbind(1), strict=True))
    each_BK = torch.stack([group_advantages(reward_B, group_B, valid_B) for reward_B, valid_B in columns], 1)
    learns_B = torch.stack([has_signal(reward_B, group_B, valid_B) for reward_B, valid_B in columns], 1).any(1)
    sum_B = (each_BK * weight_K.double()).sum(1)
    _, mean_B, std_B = _moments(sum_B, whole_B, scored_B)
    return torch.where(learns_B, (sum_B - mean_B) / (std_B + EPS), 0.0)
