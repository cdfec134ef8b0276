"""Likelihood losses, one number per trained token. Pure functions of log-probabilities."""

from __future__ import annotations

from torch import Tensor


def nll_loss(logp_N: Tensor) -> Tensor:
    """Negative log-likelihood: ``-log p``. `[N]` in, `[N]` out, in nats."""
    return -logp_N


def dft_loss(logp_N: Tensor) -> Tensor:
    """Dynamic fine-tuning (Wu et al. 2025, arXiv:2508.05629, eq. 9): ``-sg(p) log p``, with no gradient through the weight p.

    `[N]` in, `[N]` out.
    """
    return -logp_N.detach().exp() * logp_N
