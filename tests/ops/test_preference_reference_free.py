"""CPO, SimPO, AlphaPO, ORPO and reward models, by hand.

The pair: π(y_c) = 1/4 in 2 tokens, π(y_r) = 1/81 in 4, so that their geometric means are 1/2 and 1/3.
"""

import math

import pytest
import torch

from burnish.ops.bradley_terry import bradley_terry_loss, centring_loss, reliability, step_loss
from burnish.ops.preference import Pairs
from burnish.ops.reference_free import LOSSES, cpo_loss, log_odds, log_odds_ratio, odds_ratio_loss, simpo_loss


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


HAND = Pairs(
    chosen_logp_P=tensor(math.log(1 / 4)),
    rejected_logp_P=tensor(math.log(1 / 81)),
    chosen_tokens_P=tensor(2.0),
    rejected_tokens_P=tensor(4.0),
)


def close(value):
    return [pytest.approx(value, abs=1e-9)]


def test_cpo():
    """β = ½: z = ½ ln(81/4) = ln(9/2); -ln(9/11) = 0.2006707; ε = 0.1: + 0.1 · ln(9/2) = 0.3510784."""
    assert cpo_loss(HAND, beta=0.5).tolist() == close(0.2006706955)
    assert cpo_loss(HAND, beta=0.5, label_smoothing=0.1).tolist() == close(0.3510784351)


def test_cpo_hinge():
    """β = 0.1: 1 - 0.1 ln(81/4) = 0.6991845; with α = ½, r = 2 (1 - p^-½) is -2 and -16: 1 - 1.4 < 0, and at β = 0.05, 0.3."""
    assert LOSSES["hinge"](HAND, beta=0.1).tolist() == close(0.6991845206)
    assert LOSSES["hinge"](HAND, beta=0.1, alpha=0.5).tolist() == [0.0]
    assert LOSSES["hinge"](HAND, beta=0.05, alpha=0.5).tolist() == close(0.3)


def test_cpo_ipo():
    """β = ½: (ln(3/2) - 1)² = 0.3534717."""
    assert LOSSES["ipo"](HAND, beta=0.5).tolist() == close(0.3534717378)


def test_simpo():
    """β = 2, γ = ln 2: z = 2 ln(3/2) - ln 2 = ln(9/8); -ln(9/17) = 0.6359888; ε = 0.1: + 0.1 · ln(9/8) = 0.6477671."""
    assert simpo_loss(HAND, beta=2.0, simpo_gamma=math.log(2)).tolist() == close(0.6359887667)
    assert simpo_loss(HAND, beta=2.0, simpo_gamma=math.log(2), label_smoothing=0.1).tolist() == close(0.6477670702)


def test_alphapo():
    """α = 1: r = 1 - 1/p is -1 and -2, β = 2, γ = 1: z = 1; ln(1 + 1/e) = 0.3132617. At α = -1, r = p - 1 is -1/2 and -2/3: z = 1/3 - 1."""
    assert simpo_loss(HAND, beta=2.0, simpo_gamma=1.0, alpha=1.0).tolist() == close(0.3132616875)
    assert simpo_loss(HAND, beta=2.0, simpo_gamma=1.0, alpha=-1.0).tolist() == close(1.0810367535)  # ln(1 + e^(2/3))


def test_every_loss_of_cpo_is_worked_by_hand():
    assert set(LOSSES) == {"sigmoid", "hinge", "ipo", "simpo"}


def test_orpo():
    """Odds 1 and 1/2: a ratio of 2; -ln σ(ln 2) = ln(3/2)."""
    assert log_odds_ratio(HAND).tolist() == close(math.log(2))
    assert odds_ratio_loss(HAND).tolist() == close(math.log(3 / 2))


def test_log_odds_near_certainty():
    """p = 1 - 2^-20 has odds of 2^20 - 1; certainty counts as one rounding less, with the slope 1 / (1 - p) there, and less than
    certainty by rounding the wrong way counts the same."""
    logp = torch.tensor([math.log1p(-(2.0**-20)), 0.0, 1e-6], requires_grad=True)
    found = log_odds(logp)
    assert found[0].item() == pytest.approx(math.log(2.0**20 - 1), abs=1e-5)
    assert found[1:].tolist() == pytest.approx([23 * math.log(2)] * 2, abs=1e-6)
    (slope,) = torch.autograd.grad(found.sum(), logp)
    assert slope[1:].tolist() == pytest.approx([2.0**23] * 2, rel=1e-5)


def test_bradley_terry():
    """r = ln 8 and ln 2: -ln σ(ln 4) = ln(5/4); with a margin of ln 2, ln(3/2). Centring: (ln 8 + ln 2)² = (ln 16)²."""
    chosen, rejected = tensor(math.log(8)), tensor(math.log(2))
    assert bradley_terry_loss(chosen, rejected).tolist() == close(math.log(5 / 4))
    assert bradley_terry_loss(chosen, rejected, tensor(math.log(2))).tolist() == close(math.log(3 / 2))
    assert centring_loss(chosen, rejected).tolist() == close(math.log(16) ** 2)


def test_reliability():
    """Margins ln 4, -ln 4, 0 and 5: chances 4/5, 1/5, 1/2 and σ(5). Brier: (1/25 + 16/25 + 1/4 + σ(-5)²) / 4.
    At a chance of 0.8 to 0.9 one of two is right, at 0.5 to 0.6 a tie is not, and above 0.9 the last one is."""
    found = reliability(tensor(math.log(4), -math.log(4), 0.0, 5.0))
    wrong = 1 / (1 + math.exp(5))
    assert float(found["brier"].total) / found["brier"].count == pytest.approx((1 / 25 + 16 / 25 + 1 / 4 + wrong**2) / 4, rel=1e-6)
    right = {name.removeprefix("right/"): (float(one.total), one.count) for name, one in found.items() if name.startswith("right/")}
    assert right == {"0.5-0.6": (0, 1), "0.6-0.7": (0, 0), "0.7-0.8": (0, 0), "0.8-0.9": (1, 2), "0.9-1.0": (1, 1)}
    margins = {name.removeprefix("margins/"): float(one.total) for name, one in found.items() if name.startswith("margins/")}
    assert {name for name, total in margins.items() if total} == {"1..2", "-2..-1", "0..1", "above 4"}
    assert sum(margins.values()) == 4


def test_steps():
    """Scores (0, ln 3): the chance of "right" is 3/4, so -log p is ln(4/3) for a right step and ln 4 for a wrong one."""
    scores = tensor(0.0, math.log(3)).expand(2, 2)
    assert step_loss(scores, torch.tensor([1, 0])).tolist() == pytest.approx([math.log(4 / 3), math.log(4)])


def test_where_rewards_are_equal():
    assert bradley_terry_loss(tensor(3.0), tensor(3.0)).tolist() == close(math.log(2))
    same = Pairs(chosen_logp_P=tensor(-4.0), rejected_logp_P=tensor(-2.0), chosen_tokens_P=tensor(2.0), rejected_tokens_P=tensor(1.0))
    assert odds_ratio_loss(same).tolist() == close(math.log(2))
