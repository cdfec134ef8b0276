"""Losses of learning from rollouts: one number per trained token, `[N]`, to be made small; nothing here is averaged.

Throughout, for a token t of completion y, with its advantage A::

    w_t   = π(y_t)/π_old(y_t), or the ratio of its sequence (`importance_sampling_level`, see `ratios.LEVELS`)
    sg    taken as a constant, without gradient

A loss about whole completions has the completion's value at each of its tokens, and is averaged by `"sequence"`, so that it counts once.

How losses are averaged, `MEANS`: ``Σ weight_N loss_N / Σ count``, both sums over the micro-batches and ranks of one optimizer step.

    mean        weight   count                                what is averaged
    sequence    1/|y|    completions                          completions, each of which is a mean over its tokens
    length      1        completions                          completions, each of which is a sum over its tokens
    token       1        tokens                               tokens
    constant    1        completions · max_completion_length  completions, each a sum over its tokens divided by a constant

`tokens_B` has the tokens that are not computed, because nothing can be learnt from them (`Branch.left_out`): they are averaged over.

Where that differs from TRL 1.16: its ``bnpo`` divides by the tokens of each micro-batch, so that the loss depends on how a step is cut;
here it is ``dapo``. Its ``dapo``, ``cispo`` and ``vespo`` divide by the mean number of tokens in the steps of a generation batch; here
by those of the step itself. It averages the means of micro-batches, which is the same for ``grpo``, ``sapo``, ``dr_grpo`` and ``luspo``
as long as these have as many completions. `gmpo` is experimental in TRL, where importance weights and the off-policy mask pass it by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.ops.ratios import LEVELS, branch_mean, ratio
from burnish.ops.reduce import per_branch


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """The trained tokens of a micro-batch of completions, and what each is worth. Log-probs in nats, in float32 or finer."""

    logp_N: Tensor
    """Under the policy, with gradient."""
    old_logp_N: Tensor
    """Under the policy that sampled, as the trainer computes it. ``logp_N.detach()`` where that is the same policy."""
    advantage_N: Tensor
    """Of each token; of a whole completion, the same at all its tokens: ``advantage_B[branch_N]``."""
    branch_N: Tensor
    tokens_B: Tensor
    """Trained tokens of each completion, those that are left out among them. One that is left out is left out whole."""
    importance_N: Tensor | None = None
    """`ratios.importance_weights`, for losses that have them inside (vespo); None: none. Other losses are multiplied by them."""
    kept_N: Tensor | None = None
    """`entropy.top_entropy_mask`, for losses that have it inside (gmpo); None: all. Other losses are multiplied by it."""

    @property
    def log_ratio_N(self) -> Tensor:
        return self.logp_N - self.old_logp_N.detach()


def level_ratio(rollouts: Rollouts, importance_sampling_level: str) -> Tensor:
    """``w``: `[N]`. Raises ValueError for an unknown level."""
    if importance_sampling_level not in LEVELS:
        raise ValueError(f"importance_sampling_level is {importance_sampling_level!r}; choose one of {', '.join(LEVELS)}.")
    return ratio(LEVELS[importance_sampling_level](rollouts.log_ratio_N, rollouts.branch_N, rollouts.tokens_B))


def _clipped(ratio_N: Tensor, advantage_N: Tensor, epsilon: float, epsilon_high: float | None, delta: float | None) -> Tensor:
    bounded_N = ratio_N.clamp(1.0 - epsilon, 1.0 + (epsilon if epsilon_high is None else epsilon_high))
    free_N = ratio_N if delta is None else ratio_N.clamp(max=delta)
    return -torch.minimum(free_N * advantage_N, bounded_N * advantage_N)


def clipped_loss(
    rollouts: Rollouts, *, epsilon: float = 0.2, epsilon_high: float | None = None, delta: float | None = None,
    importance_sampling_level: str = "token",
) -> Tensor:  # fmt: skip
    """``-min(w A, clip(w, 1 - ε, 1 + ε_high) A)`` (PPO, Schulman et al. 2017, arXiv:1707.06347, eq. 7; GRPO, arXiv:2402.03300, eq. 3;
    `epsilon_high`, by default ε, is DAPO's, arXiv:2503.14476, eq. 10).

    `delta` also bounds w where A is negative and PPO does not clip (INTELLECT-2, arXiv:2505.07291); above ``1 + ε_high``.
    """
    return _clipped(level_ratio(rollouts, importance_sampling_level), rollouts.advantage_N, epsilon, epsilon_high, delta)


def gspo_loss(rollouts: Rollouts, *, epsilon: float = 3e-4, epsilon_high: float | None = 4e-4, delta: float | None = None) -> Tensor:
    """The clipped loss of a completion's ratio ``(π(y)/π_old(y))^(1/|y|)`` (GSPO, arXiv:2507.18071, eq. 5; ε as in its section 5.1).

    TRL's ``grpo`` with ``importance_sampling_level="sequence"``.
    """
    return _clipped(level_ratio(rollouts, "sequence"), rollouts.advantage_N, epsilon, epsilon_high, delta)


def completion_ratio(rollouts: Rollouts) -> Tensor:
    """``π(y)/π_old(y)`` of the whole completion, at each of its tokens: `[N]`."""
    return ratio(per_branch(rollouts.log_ratio_N, rollouts.branch_N, len(rollouts.tokens_B)))[rollouts.branch_N]


def rloo_loss(rollouts: Rollouts, *, epsilon: float = 0.2, epsilon_high: float | None = None) -> Tensor:
    """The clipped loss of a completion's ratio ``π(y)/π_old(y)``. Where π has not moved its gradient is ``-A ∇ log π(y)``: REINFORCE, with
    the leave-one-out baseline in A (Ahmadian et al. 2024, arXiv:2402.14740, eq. 8). The clip is TRL's."""
    return _clipped(completion_ratio(rollouts), rollouts.advantage_N, epsilon, epsilon_high, None)


def cispo_loss(rollouts: Rollouts, *, epsilon_high: float, importance_sampling_level: str = "token") -> Tensor:
    """``-sg(min(w, epsilon_high)) A log π``: no token loses its gradient (MiniMax-M1, arXiv:2506.13585, eq. 4).

    As in TRL 1.16, `epsilon_high` is the largest ratio itself, the paper's ``1 + ε_high``; ScaleRL (arXiv:2510.13786) has 5. Raises
    ValueError below 1, where it would scale down everything. The value means nothing by itself; its gradient does.
    """
    if epsilon_high < 1.0:
        raise ValueError(f"epsilon_high is {epsilon_high}; cispo takes the largest ratio itself, at least 1, such as 5.0.")
    weight_N = level_ratio(rollouts, importance_sampling_level).detach().clamp(max=epsilon_high)
    return -weight_N * rollouts.advantage_N * rollouts.logp_N


def sapo_loss(
    rollouts: Rollouts, *, sapo_temperature_pos: float = 1.0, sapo_temperature_neg: float = 1.05, importance_sampling_level: str = "token"
) -> Tensor:
    """``-(4/τ) σ(τ (w - 1)) A``, with τ by the sign of A (SAPO, Gao et al. 2025, arXiv:2511.20347): a gate that closes
    smoothly where a clip cuts, and whose slope is 1 at w = 1. TRL's τ for A = 0 is the negative one."""
    ratio_N, advantage_N = level_ratio(rollouts, importance_sampling_level), rollouts.advantage_N
    tau_N = torch.where(advantage_N > 0, sapo_temperature_pos, sapo_temperature_neg).to(ratio_N.dtype)
    return -(tau_N * (ratio_N - 1.0)).sigmoid() * (4.0 / tau_N) * advantage_N


VESPO_LOG_RATIO = 20.0
VESPO_LOWEST = -18.420680743952367
"""log 1e-8; TRL's bounds."""


def vespo_phi(
    rollouts: Rollouts, *, vespo_k_pos: float = 2.0, vespo_lambda_pos: float = 3.0, vespo_k_neg: float = 3.0, vespo_lambda_neg: float = 2.0
) -> Tensor:
    """``φ(w) = w^k e^{λ(1 - w)}`` of the completion's ratio ``w = π(y)/μ(y)``, k and λ by the sign of A: `[N]`, without gradient.

    φ(1) = 1. The log-ratio of a token is held within ±20, that of a completion between log 1e-8 and 20, as in TRL.
    """
    log_N = rollouts.log_ratio_N.detach().clamp(-VESPO_LOG_RATIO, VESPO_LOG_RATIO)
    if rollouts.importance_N is not None:
        log_N = log_N + rollouts.importance_N.log().clamp(VESPO_LOWEST, VESPO_LOG_RATIO)
    log_B = per_branch(log_N, rollouts.branch_N, len(rollouts.tokens_B)).clamp(VESPO_LOWEST, VESPO_LOG_RATIO)
    log_w_N = log_B[rollouts.branch_N]
    good_N = rollouts.advantage_N >= 0
    k_N = torch.where(good_N, vespo_k_pos, vespo_k_neg)
    lambda_N = torch.where(good_N, vespo_lambda_pos, vespo_lambda_neg)
    return (lambda_N + k_N * log_w_N - lambda_N * log_w_N.exp()).exp()


def vespo_loss(
    rollouts: Rollouts, *, vespo_k_pos: float = 2.0, vespo_lambda_pos: float = 3.0, vespo_k_neg: float = 3.0, vespo_lambda_neg: float = 2.0
) -> Tensor:
    """``-φ(w) A log π``, φ as in `vespo_phi` (VESPO, arXiv:2602.10693). Importance weights of tokens are inside w.

    The value means nothing by itself; its gradient does.
    """
    phi_N = vespo_phi(
        rollouts, vespo_k_pos=vespo_k_pos, vespo_lambda_pos=vespo_lambda_pos, vespo_k_neg=vespo_k_neg, vespo_lambda_neg=vespo_lambda_neg
    )
    return -phi_N * rollouts.advantage_N * rollouts.logp_N


def gmpo_loss(rollouts: Rollouts, *, epsilon: float = 0.4, epsilon_high: float | None = None) -> Tensor:
    """``-A exp(mean of clipped log w_t)``: the geometric mean of the tokens' ratios (GMPO, Zhao et al. 2025, arXiv:2507.20673).

    A log-ratio is clipped to at most `epsilon_high` (by default ε) where A is positive and to at least -ε where it is not: bounds in
    nats. Tokens that `Rollouts.kept_N` drops are not in the mean.
    """
    log_N, high = rollouts.log_ratio_N, epsilon if epsilon_high is None else epsilon_high
    log_N = torch.where(rollouts.advantage_N > 0, log_N.clamp(max=high), log_N.clamp(min=-epsilon))
    kept_N = torch.ones_like(log_N) if rollouts.kept_N is None else rollouts.kept_N.to(log_N.dtype)
    kept_B = per_branch(kept_N, rollouts.branch_N, len(rollouts.tokens_B))
    return -ratio(branch_mean(log_N * kept_N, rollouts.branch_N, kept_B))[rollouts.branch_N] * rollouts.advantage_N


Loss = Callable[..., Tensor]
"""``loss(rollouts, *, …) -> [N]``. Its keywords are the options that it uses, and no others."""

LOSSES: dict[str, Loss] = {
    "grpo": clipped_loss,
    "bnpo": clipped_loss,
    "dr_grpo": clipped_loss,
    "dapo": clipped_loss,
    "luspo": clipped_loss,
    "cispo": cispo_loss,
    "sapo": sapo_loss,
    "vespo": vespo_loss,
    "gspo": gspo_loss,
    "gmpo": gmpo_loss,
    "rloo": rloo_loss,
}
"""TRL's `loss_type` → loss; gspo, gmpo and rloo, which in TRL are a level and two trainers. LUSPO (arXiv:2602.05261) means the sequence's
ratio: its `importance_sampling_level` is "sequence"."""

MEANS: dict[str, str] = {
    "grpo": "sequence",
    "bnpo": "token",
    "dr_grpo": "constant",
    "dapo": "token",
    "luspo": "length",
    "cispo": "token",
    "sapo": "sequence",
    "vespo": "token",
    "gspo": "sequence",
    "gmpo": "sequence",
    "rloo": "sequence",
}
"""Loss → how it is averaged. `dr_grpo`: Liu et al. 2025, arXiv:2503.20783; `dapo`: arXiv:2503.14476, eq. 8."""


def weight(mean: str, tokens_B: Tensor, branch_N: Tensor) -> Tensor:
    """By what each token's loss is multiplied before it is added up: `[N]`, float32."""
    each_B = 1.0 / tokens_B.clamp(min=1) if mean == "sequence" else torch.ones_like(tokens_B, dtype=torch.float32)
    return each_B[branch_N]


def count(mean: str, tokens_B: Tensor, max_completion_length: int) -> float:
    """What a micro-batch adds to the number that the step's sum is divided by."""
    if mean == "token":
        return float(tokens_B.sum())
    return float(len(tokens_B) * (max_completion_length if mean == "constant" else 1))
