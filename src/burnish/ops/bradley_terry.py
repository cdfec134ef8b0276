"""Losses of a reward model over pairs. One number per pair, `[P]`; nothing is averaged."""

from __future__ import annotations

from torch import Tensor

from burnish.ops.preference import logistic


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


def ranking_metrics(chosen_reward_P: Tensor, rejected_reward_P: Tensor) -> dict[str, Tensor]:
    """What rewards say of each pair, `[P]` each, without gradient, under TRL's names; a tie is not a right answer."""
    margin_P = (chosen_reward_P - rejected_reward_P).detach()
    return {"accuracy": (margin_P > 0).to(margin_P.dtype), "margin": margin_P}
