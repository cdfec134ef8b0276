"""Losses over labelled completions, by hand: h = ln 4 and desirable, h = -ln 16 and not; β = 1/2."""

import math

import pytest
import torch

from burnish.ops.unpaired import LOSSES, apo_zero_unpaired_loss, bco_loss, kl_point, kto_loss, reward_shift

LOGRATIO = torch.tensor([math.log(4), -math.log(16)], dtype=torch.float64)
LABEL = torch.tensor([True, False])
FLIPPED = ~LABEL


def close(*values):
    return pytest.approx(list(values), abs=1e-9)


def test_kto():
    """kl = ln 16: β(h - kl) = -ln 2 and -ln 16, so 1 - 1/3 = 2/3 for the desirable and 1 - σ(ln 16) = 1/17 for the other."""
    assert kto_loss(LOGRATIO, LABEL, beta=0.5, kl=math.log(16)).tolist() == close(2 / 3, 1 / 17)


def test_kto_weights_and_flipped_labels():
    """The complements, 1/3 and 16/17, times λ_U = 3 and λ_D = 2."""
    found = kto_loss(LOGRATIO, FLIPPED, beta=0.5, kl=math.log(16), desirable_weight=2.0, undesirable_weight=3.0)
    assert found.tolist() == close(1.0, 32 / 17)


def test_kl_point():
    """6 nats over 4 completions; never below 0, and never a way back for gradients."""
    total = torch.tensor(6.0, requires_grad=True)
    point = kl_point(total, 4)
    assert point.item() == 1.5
    assert not point.requires_grad
    assert kl_point(torch.tensor(-6.0), 4).item() == 0.0


def test_apo_zero_unpaired():
    """1 - σ(ln 2) = 1/3 and σ(-ln 4) = 1/5, times λ: apo_zero's two terms."""
    assert apo_zero_unpaired_loss(LOGRATIO, LABEL, beta=0.5).tolist() == close(1 / 3, 1 / 5)
    weighted = apo_zero_unpaired_loss(LOGRATIO, LABEL, beta=0.5, desirable_weight=3.0, undesirable_weight=10.0)
    assert weighted.tolist() == close(1.0, 2.0)


def test_bco():
    """δ = ln 2: -ln σ(0) = ln 2 and -ln σ(ln 8) = ln(9/8)."""
    assert bco_loss(LOGRATIO, LABEL, beta=0.5, delta=math.log(2)).tolist() == close(math.log(2), math.log(9 / 8))


def test_reward_shift():
    """Desirable: 6 over 3; undesirable: -1 over 1. ½ (2 - 1) = 0.5; pooled, 5 over 4. One label alone has its own mean."""
    assert reward_shift((6.0, 3.0), (-1.0, 1.0)) == 0.5
    assert reward_shift((6.0, 3.0), (-1.0, 1.0), pooled=True) == 1.25
    assert reward_shift((6.0, 3.0), (0.0, 0.0)) == 2.0
    assert reward_shift((0.0, 0.0), (0.0, 0.0)) == reward_shift((0.0, 0.0), (0.0, 0.0), pooled=True) == 0.0


@pytest.mark.parametrize(("name", "wanted"), [("kto", 0.5), ("apo_zero_unpaired", 0.5)])
def test_where_policy_is_reference(name, wanted):
    options = {"kl": 0.0} if name == "kto" else {}
    assert LOSSES[name](torch.zeros(2), LABEL, beta=0.1, **options).tolist() == [wanted, wanted]
