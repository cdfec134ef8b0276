"""Losses of learning from rollouts: each equation by hand, how each is averaged, and its borders. TRL's numbers: `test_rollouts_trl.py`.

By hand, there are two completions. The first has two tokens with π/π_old = 2 and ½ and an advantage of 1; the second has one token with
π/π_old = 2 and an advantage of -1. Token by token::

    w = 2, ½ | 2            completion's ratio = 1 | 2            its root, 1 per token = 1 | 2
"""

import math

import pytest
import torch

from burnish.ops import clipping
from burnish.ops.pairs import options_of
from burnish.ops.surrogates import LOSSES, MEANS, Rollouts, count, vespo_phi, weight

LN2 = math.log(2.0)
OPTIONS = {"cispo": {"epsilon_high": 1.5}}


def rollouts(log_ratios, advantages, branches, tokens=None, **more):
    """π_old has the log-prob -1 everywhere."""
    branch_N = torch.tensor(branches)
    log_N = torch.as_tensor(log_ratios, dtype=torch.float64)
    return Rollouts(
        logp_N=(log_N - 1.0).requires_grad_(),
        old_logp_N=-torch.ones(len(branch_N), dtype=torch.float64),
        advantage_N=torch.tensor(advantages, dtype=torch.float64)[branch_N],
        branch_N=branch_N,
        tokens_B=torch.bincount(branch_N) if tokens is None else torch.tensor(tokens),
        **more,
    )


def hand(**more):
    return rollouts([LN2, -LN2, LN2], [1.0, -1.0], [0, 0, 1], **more)


def value_and_gradient(name, given, **options):
    """Token by token: the loss, and the derivative of its own mean, ``Σ weight · loss``, after log π."""
    loss_N = LOSSES[name](given, **OPTIONS.get(name, {}) | options)
    (gradient,) = torch.autograd.grad((weight(MEANS[name], given.tokens_B, given.branch_N) * loss_N).sum(), given.logp_N)
    return loss_N.tolist(), gradient.tolist()


def close(values):
    return pytest.approx(values, abs=1e-7)


@pytest.mark.parametrize("name", ["bnpo", "dapo", "dr_grpo", "luspo"])
def test_clipped(name):
    """ε = 0.2: -min(2, 1.2) = -1.2, clipped, with no gradient; -min(½, 0.8) = -½, with -½; for A = -1, max(2, 1.2) = 2, with 2."""
    assert value_and_gradient(name, hand()) == (close([-1.2, -0.5, 2.0]), close([0.0, -0.5, 2.0]))


def test_grpo():
    """The same tokens, each completion's own mean: the two tokens of the first weigh ½."""
    assert value_and_gradient("grpo", hand()) == (close([-1.2, -0.5, 2.0]), close([0.0, -0.25, 2.0]))


def test_clip_higher():
    """DAPO: with ε_high = 1.5 the first token, at 2, is within 2.5."""
    assert value_and_gradient("dapo", hand(), epsilon_high=1.5) == (close([-2.0, -0.5, 2.0]), close([-2.0, -0.5, 2.0]))


def test_two_sided():
    """INTELLECT-2: δ = 1.5 holds the third token, which PPO lets go, at 1.5: max(1.5, 1.2), and no gradient."""
    assert value_and_gradient("dapo", hand(), delta=1.5) == (close([-1.2, -0.5, 1.5]), close([0.0, -0.5, 0.0]))


def test_gspo():
    """The first completion's √(2 · ½) = 1: -1 at both tokens, each of which has half of the gradient of its ratio. The second's 2 is not
    clipped, as A is negative: 2, and 2."""
    assert value_and_gradient("gspo", hand()) == (close([-1.0, -1.0, 2.0]), close([-0.5, -0.5, 2.0]))
    assert value_and_gradient("grpo", hand(), importance_sampling_level="sequence") == (close([-1.0, -1.0, 2.0]), close([-0.5, -0.5, 2.0]))


def test_gspo_token_has_gspos_gradient():
    """GSPO, section 4.3: with one advantage for all tokens of a completion the two are the same."""
    given = rollouts([0.3, -0.1, 0.2, 0.05], [1.0, -2.0], [0, 0, 0, 1])
    both = [value_and_gradient("grpo", given, importance_sampling_level=level) for level in ("sequence", "sequence_token")]
    assert both[0] == (close(both[1][0]), close(both[1][1]))


def test_luspo():
    """LUSPO: GSPO's loss times the length. The first completion counts twice: -1 twice, with ∂/∂log π_t = -1 each."""
    assert value_and_gradient("luspo", hand(), importance_sampling_level="sequence") == (close([-1.0, -1.0, 2.0]), close([-1.0, -1.0, 2.0]))


def test_cispo():
    """Ratios 2, ½, 2 are capped at 1.5 and are weights alone: 1.5, ½ and -1.5 of -log π = 1 - ln 2, 1 + ln 2, 1 - ln 2."""
    expected = [1.5 * (1 - LN2), 0.5 * (1 + LN2), -1.5 * (1 - LN2)]
    assert value_and_gradient("cispo", hand()) == (close(expected), close([-1.5, -0.5, 1.5]))


def test_cispo_does_not_take_a_width():
    with pytest.raises(ValueError, match=r"epsilon_high is 0\.2; cispo takes the largest ratio itself, at least 1"):
        LOSSES["cispo"](hand(), epsilon_high=0.2)


def test_sapo():
    """τ = 1 for A > 0: -4σ(1) = -2.9242343 and -4σ(-½) = -1.5101627; τ = 2 for A < 0: 2σ(2) = 1.7615942.

    Slopes: 4σ(1-σ) w = -1.5728955 and -0.4700074 for the first two; 4σ(2)σ(-2) · 2 = 0.8399487 for the last. A completion's own mean halves
    the first two.
    """
    found = value_and_gradient("sapo", hand(), sapo_temperature_neg=2.0)
    assert found == (close([-2.9242343, -1.5101627, 1.7615942]), close([-0.7864477, -0.2350037, 0.8399487]))


def test_sapo_at_the_start_is_policy_gradient():
    """Where w = 1, the slope is 1 whatever τ: ∂/∂log π = -A."""
    given = rollouts([0.0, 0.0], [1.5, -2.0], [0, 1])
    assert value_and_gradient("sapo", given, sapo_temperature_pos=0.3, sapo_temperature_neg=7.0)[1] == close([-1.5, 2.0])


def test_vespo():
    """φ = w^k e^{λ(1-w)}: the first completion's w = 2 · ½ = 1, so 1; the second's w = 2 with k = 3, λ = 2: 8 e^-2 = 1.0826823.

    ∂/∂log π = -φA: -1, -1, 1.0826823.
    """
    assert vespo_phi(hand()).tolist() == close([1.0, 1.0, 1.0826823])
    expected = [1 - LN2, 1 + LN2, -1.0826823 * (1 - LN2)]
    assert value_and_gradient("vespo", hand()) == (close(expected), close([-1.0, -1.0, 1.0826823]))


def test_vespo_has_the_sampler_in_its_ratio():
    """With π_old/μ = 2 at the first token the first completion's w is 2: k = 2, λ = 3: 4 e^-3 = 0.1991483. A weight of 0 leaves nothing."""
    given = hand(importance_N=torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    assert vespo_phi(given).tolist() == close([0.1991483, 0.1991483, 0.0])


def test_gmpo():
    """ε = 0.4 in nats: the first completion's log-ratios ln 2 and -ln 2 become 0.4 and -ln 2 (A > 0: from above alone), their mean
    -0.1465736: -e^-0.1465736 = -0.8636621; the second's stays ln 2 (A < 0: from below alone): 2. The clipped token has no gradient.
    """
    value = -math.exp((0.4 - LN2) / 2)
    assert value_and_gradient("gmpo", hand()) == (close([value, value, 2.0]), close([0.0, value / 2, 2.0]))


def test_gmpo_of_the_tokens_that_are_kept():
    """Without its first token the first completion's mean is that of the second, -ln 2: -½."""
    given = hand(kept_N=torch.tensor([False, True, True]))
    assert value_and_gradient("gmpo", given) == (close([-0.5, -0.5, 2.0]), close([0.0, -0.5, 2.0]))


def test_rloo():
    """The completions' ratios, 1 and 2: -1, with ∂/∂log π_t = -1 at each token, since a completion is one action; and 2, with 2."""
    assert value_and_gradient("rloo", hand()) == (close([-1.0, -1.0, 2.0]), close([-1.0, -1.0, 2.0]))


def test_means():
    """Lengths 2, 1, and 3 that are left out; at most 10: by sequence 3 completions, by token 6, by constant 30."""
    tokens_B, branch_N = torch.tensor([2, 1, 3]), torch.tensor([0, 0, 1])
    assert weight("sequence", tokens_B, branch_N).tolist() == [0.5, 0.5, 1.0]
    for mean in ("token", "length", "constant"):
        assert weight(mean, tokens_B, branch_N).tolist() == [1.0, 1.0, 1.0]
    assert {mean: count(mean, tokens_B, 10) for mean in ("sequence", "length", "token", "constant")} == {
        "sequence": 3.0,
        "length": 3.0,
        "token": 6.0,
        "constant": 30.0,
    }


def test_every_loss_has_a_mean_and_sums():
    assert list(LOSSES) == list(MEANS) == list(clipping.SUMS)
    assert set(MEANS.values()) == {"sequence", "length", "token", "constant"}
    for name, sums in clipping.SUMS.items():
        assert set(options_of(sums)) <= set(options_of(LOSSES[name]))


def test_clip_shares():
    """Of 3 tokens and 3 that are left out: high, the first, 1/6; low, none, as the third's ratio is above 1. By completion, GSPO with
    ε = 0.2: the second moves as it likes and the first is at 1: none of 3. RLOO's: none."""
    given = rollouts([LN2, -LN2, LN2], [1.0, -1.0, 0.0], [0, 0, 1], tokens=[2, 1, 3])
    found = {name: (one.total.tolist(), one.count) for name, one in clipping.clipped_sums(given).items()}
    assert found == {"clip_ratio/low_mean": (0, 6.0), "clip_ratio/high_mean": (1, 6.0), "clip_ratio/region_mean": (1, 6.0)}
    assert [one.count for one in clipping.gspo_sums(given).values()] == [3.0] * 3
    turned = rollouts([LN2, -LN2, LN2], [-1.0, 1.0], [0, 0, 1])
    assert {name: one.total.tolist() for name, one in clipping.gmpo_sums(turned).items()} == {
        "clip_ratio/low_mean": 1,
        "clip_ratio/high_mean": 1,
        "clip_ratio/region_mean": 2,
    }
    assert clipping.rloo_sums(turned)["clip_ratio/high_mean"].total.tolist() == 1.0
    assert clipping.cispo_sums(hand(), epsilon_high=1.5)["cispo_clip_ratio"].total.tolist() == 1


NAMES = sorted(LOSSES)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_has_moved_it_is_policy_gradient(name):
    """π = π_old: ∂/∂log π_t = -A times the loss's own weight, in every one of them; nothing is clipped."""
    given = rollouts([0.0] * 4, [1.5, -0.5], [0, 0, 0, 1])
    expected = -given.advantage_N * weight(MEANS[name], given.tokens_B, given.branch_N)
    if name == "rloo":
        expected = -given.advantage_N  # a completion's log-prob is the sum over its tokens, not their mean
    assert value_and_gradient(name, given)[1] == close(expected.tolist())
    sums = clipping.SUMS[name](given, **{key: OPTIONS[name][key] for key in OPTIONS.get(name, {})})
    assert not any(one.total.tolist() for key, one in sums.items() if "clip" in key)


@pytest.mark.parametrize("name", NAMES)
def test_no_advantage_no_gradient(name):
    """Exactly none, however far the policy has gone."""
    loss_N, gradient = value_and_gradient(name, rollouts([0.0, 3.0, -50.0, 1e4], [0.0, 0.0], [0, 0, 0, 1]))
    assert loss_N == gradient == [0.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_ratios(name, dtype):
    """Finite values and gradients at log-ratios up to ±10,000, in completions of one token and of more, for good and for bad ones."""
    for advantage in (1.0, -1.0):
        log_ratios = [0.0, 17.0, 89.0, 1e4, -17.0, -104.0, -1e4, 1e4, -1e4, 5.0]
        branches = [0, 1, 2, 3, 4, 5, 6, 7, 7, 7]
        given = rollouts(log_ratios, [advantage] * 8, branches)
        given = Rollouts(
            logp_N=given.logp_N.detach().to(dtype).requires_grad_(),
            old_logp_N=given.old_logp_N.to(dtype),
            advantage_N=given.advantage_N.to(dtype),
            branch_N=given.branch_N,
            tokens_B=given.tokens_B,
            importance_N=torch.tensor([0.0, 1.0, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=dtype),
        )
        loss_N = LOSSES[name](given, **OPTIONS.get(name, {}))
        (gradient,) = torch.autograd.grad(loss_N.sum(), given.logp_N)
        assert loss_N.dtype == dtype
        assert loss_N.isfinite().all()
        assert gradient.isfinite().all()
        if advantage > 0 and name not in ("cispo", "vespo"):
            assert gradient[2:4].abs().max() == 0.0, "clipped"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("cispo", "vespo")])
def test_finite_differences(name):
    """In float64. Those of cispo and vespo, on purpose, have not the gradient of their value: see their own tests."""
    log_N = torch.tensor([0.05, -0.1, 0.13, 0.3, -0.31, 0.02], dtype=torch.float64)

    def loss(logp_N):
        branch_N = torch.tensor([0, 1, 0, 1, 2, 2])
        advantage_N = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)[branch_N]
        given = Rollouts(
            logp_N=logp_N, old_logp_N=-torch.ones(6, dtype=torch.float64), advantage_N=advantage_N,
            branch_N=branch_N, tokens_B=torch.bincount(branch_N),
        )  # fmt: skip
        return LOSSES[name](given)

    assert torch.autograd.gradcheck(loss, ((log_N - 1.0).requires_grad_(),), eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_may_be_cut_anywhere_and_its_tokens_in_any_order(name):
    """Loss and gradient of four completions together, and of two and two, with their tokens shuffled."""
    log_ratios, branches = [0.1, -0.4, 0.3, 0.05, -0.2, 0.4, 0.0, 0.21], [0, 0, 1, 1, 1, 2, 3, 3]
    advantages = [1.0, -1.0, 0.5, -2.0]

    def step(given):
        loss_N = LOSSES[name](given, **OPTIONS.get(name, {}))
        total = (weight(MEANS[name], given.tokens_B, given.branch_N) * loss_N).sum()
        return total.detach(), torch.autograd.grad(total, given.logp_N)[0], count(MEANS[name], given.tokens_B, 7)

    total, gradient, counted = step(rollouts(log_ratios, advantages, branches))
    order = [4, 2, 3, 0, 1]
    first = step(rollouts([log_ratios[i] for i in order], advantages[:2], [branches[i] for i in order]))
    second = step(rollouts(log_ratios[5:], advantages[2:], [0, 1, 1]))
    assert (first[0] + second[0]).tolist() == pytest.approx(total.tolist(), abs=1e-12)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), gradient[[*order, 5, 6, 7]], rtol=0, atol=1e-12)
    assert first[2] + second[2] == counted


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="importance_sampling_level is 'word'; choose one of token, sequence, sequence_token"):
        LOSSES["grpo"](hand(), importance_sampling_level="word")
