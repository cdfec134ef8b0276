"""Which tokens learn by their entropy, and a bonus that follows it; by hand."""

import math

import pytest
import torch

from burnish.ops.entropy import AdaptiveEntropy, EntropyControl, adapted, bonus_coefficient, top_entropy_mask, top_entropy_threshold

ENTROPY_N = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0])


@pytest.mark.parametrize(
    ("quantile", "threshold", "kept"),
    [(0.5, 1.0, [1, 3, 4]), (0.2, 2.2, [4]), (1.0, 0.0, [0, 1, 2, 3, 4]), (0.0, 3.0, [4])],
)
def test_top_entropy(quantile, threshold, kept):
    """Sorted: 0, ½, 1, 2, 3. The upper half begins in the middle, at 1; the upper fifth at place 0.8 · 4 = 3.2, which is 2.2."""
    found = top_entropy_threshold(ENTROPY_N, top_entropy_quantile=quantile)
    assert found.tolist() == pytest.approx(threshold)
    assert found.tolist() == pytest.approx(ENTROPY_N.quantile(1 - quantile).tolist())
    assert top_entropy_mask(ENTROPY_N, found).nonzero().flatten().tolist() == kept


def test_no_token_is_at_the_top_of_none():
    assert top_entropy_threshold(torch.zeros(0), top_entropy_quantile=0.2).tolist() == math.inf


def test_a_fixed_coefficient_is_applied_as_it_is():
    control = EntropyControl(coefficient=0.01)
    assert bonus_coefficient(control, None) == 0.01
    assert adapted(control, 0.3, None) == EntropyControl(coefficient=0.01, entropy=0.3)


def test_an_adaptive_coefficient_follows_the_entropy():
    """Target 1, steps of 0.25 between 0 and 0.5. Applied where the step before was at or below the target; nothing before the first."""
    adaptive = AdaptiveEntropy(entropy_coef_max=0.5, entropy_coef_delta=0.25, entropy_target=1.0)
    control, applied, coefficients = EntropyControl(coefficient=0.0), [], []
    for entropy in (1.5, 1.0, 0.9, 0.8, 1.2, 1.3, 1.4):
        applied.append(bonus_coefficient(control, adaptive))
        control = adapted(control, entropy, adaptive)
        coefficients.append(control.coefficient)
    assert coefficients == [0.0, 0.25, 0.5, 0.5, 0.25, 0.0, 0.0]
    assert applied == [0.0, 0.0, 0.25, 0.5, 0.5, 0.0, 0.0]
