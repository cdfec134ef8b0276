"""Losses over pairs: each equation by hand, at the start, at its borders, and over a step in pieces.

By hand, there is one pair: π(y_c) = 1/2 in 2 tokens, π(y_r) = 1/128 in 4, the reference 1/8 for both, and β = 1/2. So

    h_c = ln 4,  h_r = -ln 16,  βh_c = ln 2,  βh_r = -ln 4,  z = β(h_c - h_r) = ln 8,
    σ(βh_c) = 2/3,  σ(βh_r) = 1/5,  σ(z) = 8/9.
"""

import inspect
import math
from dataclasses import replace

import pytest
import torch

from burnish.ops import preference
from burnish.ops.divergences import forward_kl
from burnish.ops.preference import LOSSES, LOSSES_AS_IN_TRL, reward_metrics, same_rank
from tests.ops.preference_pairs import FIELDS, PAIRED, call, pairs_of

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


def test_reward_metrics():
    """βh_c = ln 2 = 0.6931472, βh_r = -ln 4 = -1.3862944, their difference ln 8 = 2.0794415; a tie is not a right answer."""
    found = {name: value.tolist() for name, value in reward_metrics(HAND, beta=0.5).items()}
    assert found == {
        "rewards/chosen": [close(0.6931471806)],
        "rewards/rejected": [close(-1.3862943611)],
        "rewards/margins": [close(2.0794415417)],
        "rewards/accuracies": [1.0],
    }
    tie = pairs_of([-1.0], [-3.0], [-2.0], [-4.0], [1.0], [1.0])
    assert reward_metrics(tie, beta=0.5)["rewards/accuracies"].tolist() == [0.0]


LN2 = math.log(2)
AT_THE_START = {
    "sigmoid": LN2,
    "sigmoid as in TRL": LN2,
    "smoothed sigmoid": LN2,
    "sigmoid_norm": LN2,
    "hinge": 1.0,
    "ipo": (1 / 0.4) ** 2,
    "ipo of sums": (1 / 0.4) ** 2,
    "exo_pair": math.log(0.5) - 0.5 * math.log(1e-3 * (1 - 1e-3)),
    "nca_pair": 2 * LN2,
    "robust": LN2,
    "smoothed robust": LN2,
    "bco_pair": math.log1p(math.exp(0.3)) + math.log1p(math.exp(-0.3)),
    "bco_pair as in TRL": 2 * LN2,
    "sppo_hard": 2 * (1 / 0.4) ** 2,
    "aot": LN2,
    "smoothed aot": LN2,
    "aot_unpaired": LN2,
    "smoothed aot_unpaired": LN2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * LN2 + 0.5,
    "sft": 5.0 / 4,
    "sft as in TRL": 5.0 / 7,
}


@pytest.mark.parametrize("name", PAIRED)
def test_where_policy_is_reference(name):
    """β = 0.2; z = 0, so σ = 1/2 wherever it stands, and the targets of the squares are 1/(2β) = 2.5 away."""
    pairs = pairs_of([-5.0], [-9.0], [-5.0], [-9.0], [4.0], [6.0])
    assert call(name, pairs, 0.2).tolist() == [close(AT_THE_START[name])]


@pytest.mark.parametrize("name", PAIRED)
def test_one_value_for_each_pair_wherever_it_stands(name):
    """The law *order*; each pair also has the value that it has alone, but where ranks make the loss."""
    generator = torch.Generator().manual_seed(0)
    columns = [-10 * torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(4)]
    pairs = pairs_of(*columns, *torch.randint(1, 9, (2, 5), generator=generator))
    order = torch.tensor([3, 0, 4, 1, 2])

    def take(index):
        return replace(pairs, **{name: getattr(pairs, name)[index] for name in FIELDS})

    whole = call(name, pairs, 0.3)
    assert whole.shape == (5,)
    torch.testing.assert_close(call(name, take(order), 0.3), whole[order], rtol=1e-14, atol=0)
    if "aot" not in name:
        alone = torch.cat([call(name, take(slice(i, i + 1)), 0.3) for i in range(5)])
        torch.testing.assert_close(alone, whole, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_ranks_are_those_of_the_whole_step(name):
    """A step of six pairs in pieces of one to three, each with its partners from the step: the same values and gradients."""
    generator = torch.Generator().manual_seed(1)
    leaves = [torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    columns = [*leaves, *torch.randn(2, 6, generator=generator, dtype=torch.float64), *torch.ones(2, 6, dtype=torch.float64)]
    step = pairs_of(*columns)
    whole = LOSSES[name](step, beta=0.7, label_smoothing=0.1)
    wanted = torch.autograd.grad(whole.sum(), leaves)

    chosen, rejected = step.chosen_logratio_P.detach(), step.rejected_logratio_P.detach()
    margins = (step.chosen_logp_P - step.rejected_logp_P).detach(), step.ref_chosen_logp_P - step.ref_rejected_logp_P
    pieces, totals = [], [torch.zeros(6, dtype=torch.float64) for _ in leaves]
    for piece in (slice(0, 1), slice(1, 4), slice(4, 6)):
        if name == "aot":
            partners = {"partner_P": same_rank(*margins)[piece]}
        else:
            partners = {"partners": (same_rank(chosen, rejected)[piece], same_rank(rejected, chosen)[piece])}
        part = LOSSES[name](pairs_of(*[column[piece] for column in columns]), beta=0.7, label_smoothing=0.1, **partners)
        pieces.append(part.detach())
        for total, gradient in zip(totals, torch.autograd.grad(part.sum(), leaves), strict=True):
            total += gradient
    torch.testing.assert_close(torch.cat(pieces), whole.detach(), rtol=1e-14, atol=0)
    torch.testing.assert_close(totals, list(wanted), rtol=1e-14, atol=1e-16)
    alone = LOSSES[name](pairs_of(*[column[0:3] for column in columns]), beta=0.7, label_smoothing=0.1)
    assert (alone - whole[0:3]).abs().max() > 0.01, "the ranks of a piece are other ranks"


def test_same_rank():
    """Ranks of (3, 1, 2) are 2, 0, 1; equal values have the ranks of their places."""
    assert same_rank(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([10.0, 30.0, 20.0])).tolist() == [30.0, 10.0, 20.0]
    assert same_rank(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([5.0, 4.0, 6.0])).tolist() == [4.0, 5.0, 6.0]


@pytest.mark.parametrize("label_smoothing", [-0.1, 0.5, 0.7, float("nan")])
@pytest.mark.parametrize("name", ["sigmoid", "robust", "aot", "aot_unpaired", "exo_pair"])
def test_refused_label_smoothing(name, label_smoothing):
    with pytest.raises(ValueError) as raised:
        LOSSES[name](HAND, beta=0.5, label_smoothing=label_smoothing)
    assert str(raised.value) == f"label_smoothing is {label_smoothing}; choose a number from 0 up to, but not including, 0.5."


def test_refused_borders():
    with pytest.raises(ValueError) as raised:
        preference.exo_pair_loss(HAND, beta=0.5, label_smoothing=0.0)
    assert str(raised.value) == "label_smoothing is 0, where exo_pair is infinite; choose a small number, such as 0.001."
    for tau in (0.0, -1.0, 1.5):
        with pytest.raises(ValueError) as raised:
            preference.discopop_loss(HAND, beta=0.5, discopop_tau=tau)
        assert str(raised.value) == f"discopop_tau is {tau}; choose a number above 0 and up to 1."
