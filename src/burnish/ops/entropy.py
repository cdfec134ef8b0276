"""Entropy as a means: which tokens are worth learning from, and a bonus for staying undecided.

The bonus takes ``coefficient · mean entropy`` off the loss, a mean over the tokens that learn, whatever the loss's own mean is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def top_entropy_threshold(entropy_N: Tensor, *, top_entropy_quantile: float) -> Tensor:
    """The entropy that a share `top_entropy_quantile` of these tokens reach, in nats: a scalar (Wang et al. 2025, arXiv:2506.01939).

    Give the tokens of the whole step, of all ranks: TRL 1.16 takes the threshold of each micro-batch. Between two tokens it is
    interpolated, as `torch.quantile` does, which takes no more than 16 million. Infinite where there is no token.
    """
    if not len(entropy_N):
        return entropy_N.new_full((), torch.inf)
    sorted_N = entropy_N.detach().float().sort().values
    place = (1.0 - top_entropy_quantile) * (len(sorted_N) - 1)
    below = math.floor(place)
    above = min(below + 1, len(sorted_N) - 1)
    return torch.lerp(sorted_N[below], sorted_N[above], place - below)


def top_entropy_mask(entropy_N: Tensor, threshold: Tensor) -> Tensor:
    """The tokens that reach the threshold, which alone learn: `[N]`, boolean."""
    return entropy_N.detach() >= threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyControl:
    """The state of the bonus from step to step."""

    coefficient: float
    """TRL's `entropy_coef`."""
    entropy: float = math.inf
    """The mean entropy of the step before, in nats; infinite before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveEntropy:
    """How the coefficient follows the entropy (`use_adaptive_entropy`; Skywork-OR1, He et al. 2025, arXiv:2505.22312)."""

    entropy_coef_min: float = 0.0
    entropy_coef_max: float = 1.0
    entropy_coef_delta: float = 0.005
    entropy_target: float = 0.2
    """In nats."""


def bonus_coefficient(control: EntropyControl, adaptive: AdaptiveEntropy | None) -> float:
    """What this step's mean entropy is multiplied by: adaptive, only where the step before was at or below the target."""
    return control.coefficient if adaptive is None or control.entropy <= adaptive.entropy_target else 0.0


def adapted(control: EntropyControl, entropy: float, adaptive: AdaptiveEntropy | None) -> EntropyControl:
    """The state after a step whose tokens that learn had this mean entropy: a `entropy_coef_delta` up at or below the target, or down."""
    if adaptive is None:
        return replace(control, entropy=entropy)
    if entropy <= adaptive.entropy_target:
        coefficient = min(control.coefficient + adaptive.entropy_coef_delta, adaptive.entropy_coef_max)
    else:
        coefficient = max(control.coefficient - adaptive.entropy_coef_delta, adaptive.entropy_coef_min)
    return EntropyControl(coefficient=coefficient, entropy=entropy)
