"""Losses over pairs: what a chosen and a rejected completion of one prompt teach.

A loss takes the log-probs of P pairs and returns P numbers; nothing here is averaged. Throughout, for a completion ``y``::

    h_c, h_r   log π(y)/π_ref(y) of the chosen and of the rejected completion, in nats
    s_c, s_r   their scores f'(π/π_ref) under an f-divergence (`divergences.py`); reverse KL: s = h
    ε          label smoothing: the probability that a label of the data is the wrong way round

Where papers and TRL 1.16 differ, `LOSSES` follows the papers and `LOSSES_AS_IN_TRL` has TRL's:

- ``sigmoid``: label smoothing means conservative DPO. TRL takes the option and ignores it.
- ``bco_pair``: rewards are shifted by their running mean δ. TRL has no shift.
- ``sft``: each answer's own mean over its tokens. TRL takes one mean over the tokens of all answers.

Where they differ in what is written but not in gradients or in the authors' own practice, see `apo_zero_loss` and `ipo_loss`. A
smoothing of 1/2 or more, with which labels say nothing or the opposite, is refused by every loss; TRL warns, and in one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.ops.divergences import Divergence, reverse_kl


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """P pairs under the policy. Log-probs are sums over a completion's trained tokens, in nats, in float32 or finer."""

    chosen_logp_P: Tensor
    rejected_logp_P: Tensor
    chosen_tokens_P: Tensor
    """Trained tokens of each completion, at least 1."""
    rejected_tokens_P: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencedPairs(Pairs):
    """P pairs under the policy and under the reference."""

    ref_chosen_logp_P: Tensor
    ref_rejected_logp_P: Tensor

    @property
    def chosen_logratio_P(self) -> Tensor:
        return self.chosen_logp_P - self.ref_chosen_logp_P

    @property
    def rejected_logratio_P(self) -> Tensor:
        return self.rejected_logp_P - self.ref_rejected_logp_P


PairLoss = Callable[..., Tensor]
"""``loss(pairs, *, beta, …) -> [P]``. Its keywords are the options that it uses, and no others."""


def check_label_smoothing(label_smoothing: float) -> None:
    """Raises ValueError unless ``0 ≤ ε < 1/2``."""
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is {label_smoothing}; choose a number from 0 up to, but not including, 0.5.")


def logistic(logit: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``-(1-ε) log σ(z) - ε log σ(-z)``: binary cross-entropy where a share ε of the labels is flipped. Any shape in, the same out."""
    check_label_smoothing(label_smoothing)
    return -(1.0 - label_smoothing) * F.logsigmoid(logit) - label_smoothing * F.logsigmoid(-logit)


def margin(pairs: ReferencedPairs, divergence: Divergence = reverse_kl, *, average: bool = False) -> Tensor:
    """``s_c - s_r``, or ``s_c/|y_c| - s_r/|y_r|`` where averaged over tokens: `[P]`, in nats."""
    chosen_P, rejected_P = divergence(pairs.chosen_logratio_P), divergence(pairs.rejected_logratio_P)
    return chosen_P / pairs.chosen_tokens_P - rejected_P / pairs.rejected_tokens_P if average else chosen_P - rejected_P


def sigmoid_loss(pairs: ReferencedPairs, *, beta: float, label_smoothing: float = 0.0, divergence: Divergence = reverse_kl) -> Tensor:
    """DPO, ``-log σ(β(s_c - s_r))`` (Rafailov et al. 2023, arXiv:2305.18290, eq. 7); with smoothing, conservative DPO
    (Mitchell 2023, "A note on DPO with noisy preferences", eq. 3): ``-(1-ε) log σ(z) - ε log σ(-z)``.

    TRL 1.16 ignores `label_smoothing` here: see `unsmoothed_sigmoid_loss`.
    """
    return logistic(beta * margin(pairs, divergence), label_smoothing)


def unsmoothed_sigmoid_loss(pairs: ReferencedPairs, *, beta: float, divergence: Divergence = reverse_kl) -> Tensor:
    """DPO without label smoothing, also where other losses of a mixture are smoothed; TRL 1.16's ``sigmoid``."""
    return logistic(beta * margin(pairs, divergence))


def sigmoid_norm_loss(pairs: ReferencedPairs, *, beta: float, divergence: Divergence = reverse_kl) -> Tensor:
    """Length-normalised DPO, ``-log σ(β(s_c/|y_c| - s_r/|y_r|))`` (Tülu 3, Lambert et al. 2024, arXiv:2411.15124, section 5)."""
    return logistic(beta * margin(pairs, divergence, average=True))


def hinge_loss(pairs: ReferencedPairs, *, beta: float, divergence: Divergence = reverse_kl) -> Tensor:
    """``max(0, 1 - β(s_c - s_r))``: SLiC's hinge (Zhao et al. 2023, arXiv:2305.10425) on log-ratios, which RSO calls hinge-norm
    (Liu et al. 2023, arXiv:2309.06657); β is RSO's γ."""
    return F.relu(1.0 - beta * margin(pairs, divergence))


def ipo_loss(pairs: ReferencedPairs, *, beta: float, divergence: Divergence = reverse_kl, average: bool = True) -> Tensor:
    """``(s_c/|y_c| - s_r/|y_r| - 1/(2β))²`` (Azar et al. 2023, arXiv:2310.12036, eq. 17; β is its τ).

    The equation as printed has no lengths (`average=False`). Its authors say that their experiments averaged over tokens, and
    TRL does; with sums, a target of 1/(2β) nats would mean another thing for every length.
    """
    return (margin(pairs, divergence, average=average) - 0.5 / beta).square()


def exo_pair_loss(pairs: ReferencedPairs, *, beta: float, label_smoothing: float = 1e-3, divergence: Divergence = reverse_kl) -> Tensor:
    """EXO for pairs, ``KL(q || p)`` with ``q = (σ(z), σ(-z))``, ``p = (1-ε, ε)``, ``z = β(s_c - s_r)``
    (Ji et al. 2024, arXiv:2402.00856, eq. 16). ValueError unless ``0 < ε < 1/2``; the paper has 1e-3.
    """
    check_label_smoothing(label_smoothing)
    if label_smoothing == 0.0:
        raise ValueError("label_smoothing is 0, where exo_pair is infinite; choose a small number, such as 0.001.")
    logit_P = beta * margin(pairs, divergence)
    chosen_P = logit_P.sigmoid() * (F.logsigmoid(logit_P) - math.log1p(-label_smoothing))
    return chosen_P + (-logit_P).sigmoid() * (F.logsigmoid(-logit_P) - math.log(label_smoothing))


def nca_pair_loss(pairs: ReferencedPairs, *, beta: float) -> Tensor:
    """NCA for pairs, ``-log σ(βh_c) - ½ log σ(-βh_c) - ½ log σ(-βh_r)`` (Chen et al. 2024, arXiv:2402.05369, NCA at K = 2
    with the label 1 for the chosen and 0 for the rejected)."""
    chosen_P, rejected_P = beta * pairs.chosen_logratio_P, beta * pairs.rejected_logratio_P
    return logistic(chosen_P) + 0.5 * logistic(-chosen_P) + 0.5 * logistic(-rejected_P)


def robust_loss(pairs: ReferencedPairs, *, beta: float, label_smoothing: float = 0.0, divergence: Divergence = reverse_kl) -> Tensor:
    """Robust DPO, ``[-(1-ε) log σ(z) + ε log σ(-z)] / (1-2ε)``, ``z = β(s_c - s_r)`` (Chowdhury et al. 2024, arXiv:2403.00409).

    The mean over flipped labels is DPO's loss on clean ones; a single value may be negative.
    """
    check_label_smoothing(label_smoothing)
    logit_P = beta * margin(pairs, divergence)
    return ((1.0 - label_smoothing) * logistic(logit_P) - label_smoothing * logistic(-logit_P)) / (1.0 - 2.0 * label_smoothing)


def bco_pair_loss(pairs: ReferencedPairs, *, beta: float, delta: Tensor | float) -> Tensor:
    """BCO on pairs, ``-log σ(βh_c - δ) - log σ(-(βh_r - δ))`` (Jung et al. 2024, arXiv:2404.04656).

    `delta` is the reward shift, in units of reward: a running statistic of the whole run (`unpaired.reward_shift`), never of a
    micro-batch, and without gradient. TRL 1.16 has none: see `unshifted_bco_pair_loss`.
    """
    return logistic(beta * pairs.chosen_logratio_P - delta) + logistic(delta - beta * pairs.rejected_logratio_P)


def unshifted_bco_pair_loss(pairs: ReferencedPairs, *, beta: float) -> Tensor:
    """BCO on pairs with δ = 0; TRL 1.16's ``bco_pair``."""
    return bco_pair_loss(pairs, beta=beta, delta=0.0)


def sppo_hard_loss(pairs: ReferencedPairs, *, beta: float) -> Tensor:
    """``(h_c - 1/(2β))² + (h_r + 1/(2β))²``: SPPO (Wu et al. 2024, arXiv:2405.00675, eq. 4.7, ``(h - η(P - ½))²`` with η = 1/β)
    where the winner wins with probability 1."""
    return (pairs.chosen_logratio_P - 0.5 / beta).square() + (pairs.rejected_logratio_P + 0.5 / beta).square()


def same_rank(value_P: Tensor, other_P: Tensor) -> Tensor:
    """For each of `value_P` the element of `other_P` that has the same rank, without gradient: `[P]`."""
    order_P = value_P.argsort(stable=True)
    return torch.empty_like(other_P).index_copy_(0, order_P, other_P.detach().sort().values)


def aot_loss(pairs: ReferencedPairs, *, beta: float, label_smoothing: float = 0.0, partner_P: Tensor | None = None) -> Tensor:
    """AOT for pairs (Melnyk et al. 2024, arXiv:2406.05882): the i-th smallest margin of the policy, ``log π(y_c) - log π(y_r)``,
    against the i-th smallest of the reference, ``-log σ(β(m - m_ref))``; with smoothing as in `sigmoid_loss`.

    The loss compares distributions, so ranks are those of the whole step. `partner_P` is, for each pair, the reference's margin of
    the same rank in the step: ``same_rank(m, m_ref)`` over all its pairs; None where these P pairs are the whole step.
    """
    policy_P = pairs.chosen_logp_P - pairs.rejected_logp_P
    if partner_P is None:
        partner_P = same_rank(policy_P, pairs.ref_chosen_logp_P - pairs.ref_rejected_logp_P)
    return logistic(beta * (policy_P - partner_P), label_smoothing)


def aot_unpaired_loss(
    pairs: ReferencedPairs, *, beta: float, label_smoothing: float = 0.0, partners: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """AOT without pairs (arXiv:2406.05882): the i-th smallest ``h_c`` against the i-th smallest ``h_r``; smoothing as in `sigmoid_loss`.

    Ranks are those of the whole step. `partners` are, `[P]` each, the ``h_r`` of the same rank as each ``h_c`` and the reverse, from
    `same_rank` over all pairs of the step; None where these are all. The value of pair i is that of its chosen completion. Its
    gradient is of both completions, each against its own partner, so that gradients add up however a step is cut.
    """
    chosen_P, rejected_P = pairs.chosen_logratio_P, pairs.rejected_logratio_P
    of_chosen_P, of_rejected_P = partners or (same_rank(chosen_P, rejected_P), same_rank(rejected_P, chosen_P))
    value_P = logistic(beta * (chosen_P - of_chosen_P), label_smoothing)
    again_P = logistic(beta * (of_rejected_P - rejected_P), label_smoothing)
    return value_P + (again_P - again_P.detach())


def apo_zero_loss(pairs: ReferencedPairs, *, beta: float) -> Tensor:
    """``1 - σ(βh_c) + σ(βh_r)``: the chosen up, the rejected down (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7).

    The paper has no 1; with it, as in TRL, the loss is never negative.
    """
    return (-beta * pairs.chosen_logratio_P).sigmoid() + (beta * pairs.rejected_logratio_P).sigmoid()


def apo_down_loss(pairs: ReferencedPairs, *, beta: float) -> Tensor:
    """``σ(βh_c) + 1 - σ(β(h_c - h_r))``: both down, the rejected further (arXiv:2408.06266, eq. 8). The 1 is as in `apo_zero_loss`."""
    return (beta * pairs.chosen_logratio_P).sigmoid() + (-beta * margin(pairs)).sigmoid()


def discopop_loss(pairs: ReferencedPairs, *, beta: float, discopop_tau: float = 0.05, divergence: Divergence = reverse_kl) -> Tensor:
    """``-log σ(z) (1 - σ(z/τ)) + exp(-z) σ(z/τ)``, ``z = β(s_c - s_r)`` (Lu et al. 2024, arXiv:2406.08414, eq. 5).

    ValueError unless ``0 < τ ≤ 1``: above 1 the loss would grow exponentially with the margin by which a pair is wrong.
    """
    if not 0.0 < discopop_tau <= 1.0:
        raise ValueError(f"discopop_tau is {discopop_tau}; choose a number above 0 and up to 1.")
    logit_P = beta * margin(pairs, divergence)
    mix_P = logit_P / discopop_tau
    # one exponential of a sum: exp(-z) alone overflows where σ(z/τ) vanishes
    return logistic(logit_P) * (-mix_P).sigmoid() + (F.logsigmoid(mix_P) - logit_P).exp()


def sft_loss(pairs: Pairs) -> Tensor:
    """``-log π(y_c) / |y_c|``, the term that keeps the chosen likely (MPO, Wang et al. 2024, arXiv:2411.10442, section 3.2;
    Iterative RPO, Pang et al. 2024, arXiv:2404.19733, eq. 1). TRL 1.16 weighs tokens alike: see `token_mean_sft_loss`.

    It wants plain log-probs, also in a mixture whose other losses take length-desensitised ones.
    """
    return -pairs.chosen_logp_P / pairs.chosen_tokens_P


def token_mean_sft_loss(pairs: Pairs, *, tokens_per_pair: Tensor | float) -> Tensor:
    """``-log π(y_c)`` over the mean length of the step's chosen completions; TRL 1.16's ``sft``.

    Its mean over the step's pairs is the mean over their chosen tokens. TRL takes `tokens_per_pair` of each micro-batch.
    """
    return -pairs.chosen_logp_P / tokens_per_pair


LOSSES: dict[str, PairLoss] = {
    "sigmoid": sigmoid_loss,
    "hinge": hinge_loss,
    "ipo": ipo_loss,
    "exo_pair": exo_pair_loss,
    "nca_pair": nca_pair_loss,
    "robust": robust_loss,
    "bco_pair": bco_pair_loss,
    "sppo_hard": sppo_hard_loss,
    "aot": aot_loss,
    "aot_unpaired": aot_unpaired_loss,
    "apo_zero": apo_zero_loss,
    "apo_down": apo_down_loss,
    "discopop": discopop_loss,
    "sft": sft_loss,
    "sigmoid_norm": sigmoid_norm_loss,
}
"""TRL's `loss_type` → loss, as in the papers."""

LOSSES_AS_IN_TRL: dict[str, PairLoss] = {
    "sigmoid": unsmoothed_sigmoid_loss,
    "bco_pair": unshifted_bco_pair_loss,
    "sft": token_mean_sft_loss,
}
"""Those that TRL 1.16 defines otherwise than their papers, as TRL does."""
