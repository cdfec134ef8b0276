"""Losses over pairs: each equation by hand, at the start, at its borders, and over a step in pieces.

By hand, there is one pair: π(y_c) = 1/2 in 2 tokens, π(y_r) = 1/128 in 4, the reference 1/8 for both, and β = 1/2. So

    h_c = ln 4,  h_r = -ln 16,  βh_c = ln 2,  βh_r = -ln 4,  z = β(h_c - h_r) = ln 8,
    σ(βh_c) = 2/3,  σ(βh_r) = 1/5,  σ(z) = 8/9.
"""

import inspect
import math

import pytest

from burnish.ops.divergences import forward_kl
from burnish.ops.pairs import reward_sums
from burnish.ops.preference import LOSSES, LOSSES_AS_IN_TRL
from tests.ops.preference_pairs import pairs_of

HAND = pairs_of([math.log(1 / 2)], [math.log(1 / 128)], [math.log(1 / 8)], [math.log(1 / 8)], [2.0], [4.0])


def by_hand(name, **options):
    loss = {**LOSSES, **{f"{key} as in TRL": value for key, value in LOSSES_AS_IN_TRL.items()}}[name]
    (value,) = loss(HAND, **({} if name.startswith("sft") else {"beta": 0.5}), **options).tolist()
    return value


def close(value):
    return pytest.approx(value, abs=1e-7)


def test_sigmoid():
    """-ln(8/9) = 0.1177830."""
    assert by_hand("sigmoid") == close(0.1177830357)


def test_sigmoid_with_label_smoothing_is_conservative_dpo():
    """ε = 0.1: 0.9 · -ln(8/9) + 0.1 · -ln(1/9) = 0.1060047 + 0.2197225 = 0.3257272; TRL's has no such option."""
    assert by_hand("sigmoid", label_smoothing=0.1) == close(0.3257271899)
    assert by_hand("sigmoid as in TRL") == close(0.1177830357)
    assert "label_smoothing" not in inspect.signature(LOSSES_AS_IN_TRL["sigmoid"]).parameters


def test_sigmoid_under_another_divergence():
    """Forward KL: f' = 1 - 1/u is 3/4 and -15; z = ½ · 15.75; ln(1 + e^-7.875) = 0.0003800."""
    assert by_hand("sigmoid", divergence=forward_kl) == close(0.0003800489)


def test_sigmoid_norm():
    """h_c/2 = ln 2, h_r/4 = -ln 2; z = ½ ln 4 = ln 2; -ln(2/3) = 0.4054651."""
    assert by_hand("sigmoid_norm") == close(0.4054651081)


def test_hinge():
    """β = 0.1: 1 - 0.1 ln 64 = 0.5841117; at β = 1/2, z = 2.08 is beyond the margin of 1."""
    assert LOSSES["hinge"](HAND, beta=0.1).tolist() == [close(0.5841116917)]
    assert by_hand("hinge") == 0.0


def test_ipo():
    """(ln 2 + ln 2 - 1/(2 · ½))² = 0.3862944² = 0.1492233; as printed, without lengths: (ln 64 - 1)² = 3.1588831² = 9.9785422."""
    assert by_hand("ipo") == close(0.1492233338)
    assert by_hand("ipo", average=False) == close(9.9785422886)


def test_exo_pair():
    """ε = 0.1: 8/9 · ln((8/9)/0.9) + 1/9 · ln((1/9)/0.1) = -0.0110423 + 0.0117067 = 0.0006645."""
    assert by_hand("exo_pair", label_smoothing=0.1) == close(0.0006645048)


def test_nca_pair():
    """-ln(2/3) - ½ ln(1/3) - ½ ln(4/5) = 0.4054651 + 0.5493061 + 0.1115718 = 1.0663430."""
    assert by_hand("nca_pair") == close(1.0663430281)


def test_robust():
    """ε = 0.1: (0.9 · -ln(8/9) - 0.1 · -ln(1/9)) / 0.8 = (0.1060047 - 0.2197225) / 0.8 = -0.1421472; with ε = 0, DPO."""
    assert by_hand("robust", label_smoothing=0.1) == close(-0.1421471568)
    assert by_hand("robust") == close(0.1177830357)


def test_bco_pair():
    """δ = ln 2: -ln σ(ln 2 - ln 2) - ln σ(ln 4 + ln 2) = ln 2 + ln(9/8) = 0.8109302; δ = 0, TRL's: ln(3/2) + ln(5/4) = 0.6286087."""
    assert by_hand("bco_pair", delta=math.log(2)) == close(0.8109302162)
    assert by_hand("bco_pair as in TRL") == by_hand("bco_pair", delta=0.0) == close(0.6286086594)


def test_sppo_hard():
    """(ln 4 - 1)² + (-ln 16 + 1)² = 0.1492233 + 3.1420708 = 3.2912941."""
    assert by_hand("sppo_hard") == close(3.2912941116)


def test_aot():
    """Two pairs. Policy margins ln 2 and ln 16, the reference's ln 4 and 0: by rank, ln 2 - 0 and ln 16 - ln 4; β = 1.

    -ln(2/3) = 0.4054651 and -ln(4/5) = 0.2231436. Pair by pair it would be ln 3 and ln(17/16). ε = 0.1 adds 0.1 · z to each.
    """
    pairs = pairs_of([math.log(2), math.log(16)], [0.0, 0.0], [math.log(4), 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0])
    assert LOSSES["aot"](pairs, beta=1.0).tolist() == [close(0.4054651081), close(0.2231435513)]
    assert LOSSES["aot"](pairs, beta=1.0, label_smoothing=0.1).tolist() == [close(0.4747798262), close(0.3617729874)]
    assert LOSSES["sigmoid"](pairs, beta=1.0).tolist() == [close(math.log(3)), close(math.log(17 / 16))]


def test_aot_unpaired():
    """Two pairs. h_c = ln 8 and 0, h_r = -ln 2 and ln 2: by rank, ln 8 - ln 2 = ln 4 and 0 + ln 2; β = 1.

    -ln(4/5) = 0.2231436 and -ln(2/3) = 0.4054651; ε = 0.1 adds 0.1 · z to each.
    """
    pairs = pairs_of([math.log(8), 0.0], [-math.log(2), math.log(2)], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0])
    assert LOSSES["aot_unpaired"](pairs, beta=1.0).tolist() == [close(0.2231435513), close(0.4054651081)]
    assert LOSSES["aot_unpaired"](pairs, beta=1.0, label_smoothing=0.1).tolist() == [close(0.3617729874), close(0.4747798262)]


def test_apo_zero():
    """1 - 2/3 + 1/5 = 8/15."""
    assert by_hand("apo_zero") == close(8 / 15)


def test_apo_down():
    """2/3 + 1 - 8/9 = 7/9."""
    assert by_hand("apo_down") == close(7 / 9)


def test_discopop():
    """τ = ½: z/τ = ln 64; ln(9/8) · 1/65 + 1/8 · 64/65 = 0.0018120 + 0.1230769 = 0.1248890.

    τ = 1, the largest: ln(9/8) · 1/9 + 1/8 · 8/9 = 0.0130870 + 0.1111111 = 0.1241981.
    """
    assert by_hand("discopop", discopop_tau=0.5) == close(0.1248889698)
    assert by_hand("discopop", discopop_tau=1.0) == close(0.1241981151)


def test_sft():
    """ln 2 over its 2 tokens = 0.3465736; TRL's, over the 3 tokens that a pair has on average: 0.2310491."""
    assert by_hand("sft") == close(0.3465735903)
    assert by_hand("sft as in TRL", tokens_per_pair=3.0) == close(0.2310490602)


def test_every_loss_is_worked_by_hand():
    worked = {name.removeprefix("test_") for name in globals()}
    assert set(LOSSES) <= worked
    assert set(LOSSES_AS_IN_TRL) <= set(LOSSES)
    assert len(LOSSES) == 15


def test_reward_sums():
    """βh_c = ln 2 = 0.6931472, βh_r = -ln 4 = -1.3862944, their difference ln 8 = 2.0794415; a tie is not a right answer."""
    chosen, rejected = (0.5 * logratio for logratio in (HAND.chosen_logratio_P, HAND.rejected_logratio_P))
    found = {name: (float(one.total), one.count) for name, one in reward_sums(chosen, rejected).items()}
    assert found == {
        "rewards/chosen": (close(0.6931471806), 1.0),
        "rewards/rejected": (close(-1.3862943611), 1.0),
        "rewards/margins": (close(2.0794415417), 1.0),
        "rewards/accuracies": (1.0, 1.0),
    }
    assert float(reward_sums(chosen, chosen)["rewards/accuracies"].total) == 0.0
