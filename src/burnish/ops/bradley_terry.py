"""Losses of reward models, over pairs and over steps. One number per pair or step; nothing is averaged."""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor

from burnish.ops.preference import logistic
from burnish.types import Sum


def bradley_terry_loss(chosen_reward_P: Tensor, rejected_reward_P: Tensor, margin_P: Tensor | float = 0.0) -> Tensor:
    """``-log σ(r_c - r_r - m)``: the negative log-likelihood of a Bradley-Terry preference (Ouyang et al. 2022, arXiv:2203.02155,
    eq. 1), with a margin by which the chosen should win (Llama 2, Touvron et al. 2023, arXiv:2307.09288, eq. 2).

    Rewards are scalars in nats of preference: a difference of 1 is odds of e. `[P]` in, `[P]` out.
    """
    return logistic(chosen_reward_P - rejected_reward_P - margin_P)


def centring_loss(chosen_reward_P: Tensor, rejected_reward_P: Tensor) -> Tensor:
    """``(r_c + r_r)²``: draws rewards to a mean of 0, which the likelihood leaves free (Eisenstein et al. 2023, arXiv:2312.09244, eq. 2).

    TRL's `center_rewards_coefficient` is its weight beside `bradley_terry_loss`; the paper has 0.01. `[P]` in, `[P]` out.
    """
    return (chosen_reward_P + rejected_reward_P).square()


def step_loss(score_NK: Tensor, label_N: Tensor) -> Tensor:
    """``-log softmax(score)[label]``, over the classes of a step, wrong (0) and right (1). `[N, 2]`, `[N]` in, `[N]` out, in nats."""
    return F.cross_entropy(score_NK, label_N, reduction="none")


EDGES = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
"""Of the histogram of margins."""
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def reliability(margin_P: Tensor) -> dict[str, Sum]:
    """How far rewards can be believed, from ``r_c - r_r`` of P pairs.

    ``brier``: the mean of ``(1 - σ(margin))²``, 1/4 for a model that never knows (Brier 1950). ``right/0.9-1.0``: of the pairs in which the
    model gives one of the two this chance to be the better one, the share in which it is; a calibrated model has a share within the bounds.
    ``margins/1..2``: the share of pairs with a margin there.
    """
    count = float(len(margin_P))
    sums = {"brier": Sum(total=(-margin_P).sigmoid().square().sum(), count=count)}
    confidence_P, right_P = margin_P.abs().sigmoid(), margin_P > 0
    for low, high in pairwise(CONFIDENCES):
        inside_P = (confidence_P >= low) & ((confidence_P < high) | (high == CONFIDENCES[-1]))
        sums[f"right/{low}-{high}"] = Sum(total=(right_P & inside_P).sum(), count=float(inside_P.sum()))
    bounds = (-math.inf, *EDGES, math.inf)
    for low, high in pairwise(bounds):
        name = f"below {high:g}" if low == -math.inf else f"above {low:g}" if high == math.inf else f"{low:g}..{high:g}"
        sums[f"margins/{name}"] = Sum(total=((margin_P >= low) & (margin_P < high)).sum(), count=count)
    return sums
