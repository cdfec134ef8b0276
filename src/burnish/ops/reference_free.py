"""Losses over pairs that need no reference: CPO, SimPO, AlphaPO and ORPO. One number per pair, `[P]`; nothing is averaged.

CPO's are the losses of `preference.py` with a uniform reference, which cancels. Their likelihood term is `preference.sft_loss`.
`alpha` is AlphaPO's, and 0 leaves log-probs as they are (Gupta et al. 2025, arXiv:2501.03884): ``r = (1 - p^-α) / α`` with p the
probability of the completion (``sigmoid``, ``hinge``), or its geometric mean over tokens (``ipo``, ``simpo``), as in TRL 1.16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.ops.divergences import box_cox
from burnish.ops.preference import Pairs, logistic


def _margin(pairs: Pairs, alpha: float, *, average: bool) -> Tensor:
    chosen_P, rejected_P = pairs.chosen_logp_P, pairs.rejected_logp_P
    if average:
        chosen_P, rejected_P = chosen_P / pairs.chosen_tokens_P, rejected_P / pairs.rejected_tokens_P
    return box_cox(chosen_P, -alpha) - box_cox(rejected_P, -alpha)


def cpo_loss(pairs: Pairs, *, beta: float, label_smoothing: float = 0.0, alpha: float = 0.0) -> Tensor:
    """``-log σ(β(log π(y_c) - log π(y_r)))`` (CPO, Xu et al. 2024, arXiv:2401.08417, eq. 3); smoothing as in `preference.sigmoid_loss`."""
    return logistic(beta * _margin(pairs, alpha, average=False), label_smoothing)


def cpo_hinge_loss(pairs: Pairs, *, beta: float, alpha: float = 0.0) -> Tensor:
    """``max(0, 1 - β(log π(y_c) - log π(y_r)))`` (SLiC-HF, Zhao et al. 2023, arXiv:2305.10425)."""
    return F.relu(1.0 - beta * _margin(pairs, alpha, average=False))


def cpo_ipo_loss(pairs: Pairs, *, beta: float, alpha: float = 0.0) -> Tensor:
    """``(log π(y_c)/|y_c| - log π(y_r)/|y_r| - 1/(2β))²`` (IPO, Azar et al. 2023, arXiv:2310.12036, eq. 17, without its reference)."""
    return (_margin(pairs, alpha, average=True) - 0.5 / beta).square()


def simpo_loss(pairs: Pairs, *, beta: float, simpo_gamma: float = 0.5, label_smoothing: float = 0.0, alpha: float = 0.0) -> Tensor:
    """``-log σ(β(log π(y_c)/|y_c| - log π(y_r)/|y_r|) - γ)`` (SimPO, Meng et al. 2024, arXiv:2405.14734, eq. 6); with `alpha`, AlphaPO.

    γ is in units of reward; the paper's tables also give γ/β. Smoothing as in `preference.sigmoid_loss`.
    """
    return logistic(beta * _margin(pairs, alpha, average=True) - simpo_gamma, label_smoothing)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": cpo_loss,
    "hinge": cpo_hinge_loss,
    "ipo": cpo_ipo_loss,
    "simpo": simpo_loss,
}
"""CPO's `loss_type` → loss. TRL's ``alphapo`` is ``simpo`` with an `alpha` and without the likelihood term."""


def log_odds(mean_logp: Tensor) -> Tensor:
    """``log(p / (1 - p))`` from ``log p``, where p is a completion's geometric mean over tokens (ORPO, eq. 4). Any shape in, the same out.

    A probability within one rounding of 1, whose odds would be infinite, counts as one rounding below it.
    """
    rounding = torch.finfo(mean_logp.dtype).eps
    # the excess is taken off as a constant, so that the gradient still points away from 1
    below = mean_logp - F.relu(mean_logp + rounding).detach()
    return below - (-torch.expm1(below)).log()


def log_odds_ratio(pairs: Pairs) -> Tensor:
    """``log odds(y_c) - log odds(y_r)``: `[P]` (ORPO, eq. 5)."""
    return log_odds(pairs.chosen_logp_P / pairs.chosen_tokens_P) - log_odds(pairs.rejected_logp_P / pairs.rejected_tokens_P)


def odds_ratio_loss(pairs: Pairs) -> Tensor:
    """``-log σ(log odds ratio)``: ORPO's L_OR (Hong et al. 2024, arXiv:2403.07691, eq. 7).

    ORPO adds λ times it to the likelihood loss of the chosen answer (eq. 6); TRL calls λ `beta`.
    """
    return logistic(log_odds_ratio(pairs))
