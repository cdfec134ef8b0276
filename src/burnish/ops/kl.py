"""Estimates of ``KL(π‖π_ref)`` from sampled tokens: one number per token, `[N]`, in nats (Schulman 2020, "Approximating KL divergence").

With ``d = log π - log π_ref`` of a token that π itself has drawn:

    estimate   formula          its mean      the mean of its gradient, as a term of the loss
    k1         d                KL            0: it says nothing                                        right in the reward
    k2         d²/2             not KL        that of KL(π‖π_ref)                                       right in the loss, on-policy
    k3         e^-d - 1 + d     KL            that of KL(π_ref‖π), the other way round                  right as a number to look at
    w k3       w = π/π_old      KL            that of KL(π‖π_ref), also for tokens that π_old drew      right in the loss

So an estimate is chosen by what is wanted: `in_reward` to be taken off rewards, `in_loss` to be added to a loss, `k3` to be logged.
`in_loss` is TRL's `use_bias_correction_kl` (DeepSeek-V3.2, arXiv:2512.02556, section 3.1), which has a gradient through the weight too.

All of this is of one token given those before it. The KL of whole completions also depends on which prefixes the policy comes to, and
only KL in the reward, where a token's gradient is multiplied by the log-ratios of the whole completion, has a gradient of that part.
"""

from __future__ import annotations

from torch import Tensor

from burnish.ops.divergences import box_cox


def k1(logp_N: Tensor, ref_logp_N: Tensor) -> Tensor:
    """``d``: unbiased, may be negative. Any shape in, the same out."""
    return logp_N - ref_logp_N


def k2(logp_N: Tensor, ref_logp_N: Tensor) -> Tensor:
    """``d²/2``: a biased value, and on-policy the gradient of ``KL(π‖π_ref)``. Any shape in, the same out."""
    return 0.5 * (logp_N - ref_logp_N).square()


def k3(logp_N: Tensor, ref_logp_N: Tensor) -> Tensor:
    """``e^-d - 1 + d``: unbiased, never negative; its gradient is that of ``KL(π_ref‖π)``. Any shape in, the same out.

    The exponential goes on as a straight line above 16 nats (`divergences.box_cox`), where TRL's overflows at 88.
    """
    log_u_N = ref_logp_N - logp_N
    return box_cox(log_u_N, 1.0) - log_u_N


def in_loss(logp_N: Tensor, ref_logp_N: Tensor, ratio_N: Tensor) -> Tensor:
    """``w k3``: the value and the gradient of ``KL(π‖π_ref)``, `[N]`. `ratio_N` is ``π/π_old`` of each token, with its gradient.

    On-policy the weight is 1 and its gradient counts all the same. With the ratio of a whole sequence in its place (TRL at
    ``importance_sampling_level="sequence"``) it is an approximation.
    """
    return k3(logp_N, ref_logp_N) * ratio_N


def in_reward(old_logp_N: Tensor, ref_logp_N: Tensor) -> Tensor:
    """``k1`` of the policy that sampled, without gradient, `[N]`. A completion's sum over tokens, times β, is taken off its reward."""
    return k1(old_logp_N, ref_logp_N).detach()
