"""f-divergence scores: Table 1 of f-DPO by hand, at u = 4."""

import math

import pytest
import torch

from burnish.ops.divergences import (
    DIVERGENCES,
    alpha_divergence,
    alpha_divergence_as_in_trl,
    box_cox,
    forward_kl,
    js_divergence,
    reverse_kl,
)

LOG4 = torch.tensor([math.log(4)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("score", "wanted"),
    [
        (reverse_kl(LOG4), 1.3862943611),  # ln 4
        (forward_kl(LOG4), 0.75),  # 1 - 1/4
        (js_divergence(LOG4), 0.4700036292),  # ln(2 · 4 / 5) = ln 1.6
        (alpha_divergence(LOG4), 1.0),  # (1 - 4^-½) / ½ = 2 (1 - ½)
        (alpha_divergence_as_in_trl(LOG4), 1.0),  # (4^-½ - 1) / -½: the same
        (alpha_divergence(LOG4, f_alpha_divergence_coef=1.5), 0.5833333333),  # (1 - 4^-1.5) / 1.5 = (7/8) / 1.5
        (alpha_divergence_as_in_trl(LOG4, f_alpha_divergence_coef=1.5), 2.0),  # (4^½ - 1) / ½
    ],
)
def test_by_hand(score, wanted):
    assert score.tolist() == pytest.approx([wanted], abs=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_nothing_where_policy_is_reference(name):
    assert DIVERGENCES[name](torch.zeros(1)).tolist() == [0.0]


def test_alpha_goes_from_one_kl_to_the_other():
    log_u = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for alpha, other in ((0.0, reverse_kl), (1e-9, reverse_kl), (1.0, forward_kl)):
        torch.testing.assert_close(alpha_divergence(log_u, f_alpha_divergence_coef=alpha), other(log_u), rtol=1e-7, atol=1e-9)
        theirs = alpha_divergence_as_in_trl(log_u, f_alpha_divergence_coef=1 - alpha)
        torch.testing.assert_close(theirs, other(log_u), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.5, 2.0])
def test_beyond_the_limit_a_straight_line(power):
    """At an exponent of 17, one beyond the limit: (e^16 - 1 + e^16 · 1) / power, with the slope e^16."""
    log_u = torch.tensor([17.0 / power], dtype=torch.float64, requires_grad=True)
    score = box_cox(log_u, power)
    assert score.tolist() == pytest.approx([(2 * math.exp(16) - 1) / power], rel=1e-12)
    (slope,) = torch.autograd.grad(score.sum(), log_u)
    assert slope.tolist() == pytest.approx([math.exp(16)], rel=1e-12)


def test_slopes_in_float32():
    """u^power, to a rounding or two: the line beyond the limit adds nothing that cancels below it."""
    log_u = torch.tensor([-15.9, -3.0, -0.1, 0.0, 2.0, 15.0], requires_grad=True)
    (slope,) = torch.autograd.grad(box_cox(log_u, -1.0).sum(), log_u)
    torch.testing.assert_close(slope, (-log_u.detach()).exp(), rtol=1e-6, atol=1e-7)
