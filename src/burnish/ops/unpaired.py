"""Losses over single completions with a label: desirable (True) or not. One number per branch, `[B]`; nothing is averaged.

``h = log π(y)/π_ref(y)`` is a branch's log-ratio in nats, `logratio_B`; `label_B` is boolean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from burnish.ops.preference import logistic


def _signed(value_B: Tensor, label_B: Tensor) -> Tensor:
    return torch.where(label_B, value_B, -value_B)


def kl_point(total: Tensor, count: float) -> Tensor:
    """KTO's reference point: ``max(0, mean h)`` over completions put after prompts that are not theirs. In nats, without gradient.

    `total` and `count` are the sum of h and the number of such completions in the whole step, over its micro-batches and ranks: the
    point is part of every branch's loss, and not a mean that the loop could take. TRL 1.16 takes it over one micro-batch of all ranks.
    """
    return (total.detach() / count).clamp(min=0.0)


def kto_loss(
    logratio_B: Tensor,
    label_B: Tensor,
    *,
    beta: float,
    kl: Tensor | float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7): ``λ_D (1 - σ(β(h - kl)))`` for a desirable completion and
    ``λ_U (1 - σ(β(kl - h)))`` for an undesirable one. `[B]`; `kl` is `kl_point` of the whole step.
    """
    value_B = (-beta * _signed(logratio_B - kl, label_B)).sigmoid()
    return torch.where(label_B, desirable_weight * value_B, undesirable_weight * value_B)


def apo_zero_unpaired_loss(
    logratio_B: Tensor, label_B: Tensor, *, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Tensor:
    """APO-zero without pairs (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7 term by term), ``1 - σ(βh)`` and ``σ(βh)``:
    KTO with its reference point at 0."""
    return kto_loss(logratio_B, label_B, beta=beta, kl=0.0, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)


def bco_loss(logratio_B: Tensor, label_B: Tensor, *, beta: float, delta: Tensor | float) -> Tensor:
    """BCO (Jung et al. 2024, arXiv:2404.04656): ``-log σ(βh - δ)`` for a desirable completion, ``-log σ(-(βh - δ))`` for an
    undesirable one. `[B]`; `delta` is `reward_shift` of the run so far, in units of reward."""
    return logistic(_signed(beta * logratio_B - delta, label_B))


def reward_shift(desirable: tuple[float, float], undesirable: tuple[float, float], *, pooled: bool = False) -> float:
    """BCO's δ, from (total, count) of the rewards ``βh`` of each label so far: ``½ (mean of the desirable + mean of the undesirable)``.

    A label without completions is left out; 0 where there are none. `pooled=True`: one mean over all completions, as in TRL's BCO,
    which follows the more frequent label.
    """
    if pooled:
        desirable, undesirable = (desirable[0] + undesirable[0], desirable[1] + undesirable[1]), (0.0, 0.0)
    means = [total / count for total, count in (desirable, undesirable) if count]
    return sum(means) / len(means) if means else 0.0


def label_metrics(logp_B: Tensor, reward_B: Tensor, label_B: Tensor) -> dict[str, tuple[Tensor, int]]:
    """Totals and counts of log-probs and implicit rewards by label, under TRL's names: "chosen" is desirable."""
    sides = {"chosen": label_B, "rejected": ~label_B}
    return {
        f"{what}/{side}": (value_B[mask_B].sum(), int(mask_B.sum()))
        for what, value_B in (("logps", logp_B), ("rewards", reward_B))
        for side, mask_B in sides.items()
    }


LOSSES: dict[str, Callable[..., Tensor]] = {"kto": kto_loss, "apo_zero_unpaired": apo_zero_unpaired_loss}
"""KTO's `loss_type` → loss."""
