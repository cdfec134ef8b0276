"""Estimates of a KL divergence against the exact one: every outcome of a toy softmax, weighted by its probability.

By hand: π = (1/2, 1/4, 1/4), π_ref = (1/4, 1/4, 1/2), so d = (ln 2, 0, -ln 2). With logits z::

    KL(π‖π_ref) = ½ ln 2 - ¼ ln 2 = ¼ ln 2               ∂/∂z_v = π_v (d_v - KL) = ln 2 · (3/8, -1/16, -5/16)
    KL(π_ref‖π) = -¼ ln 2 + ½ ln 2 = ¼ ln 2              ∂/∂z_v = π_v - π_ref,v  = (1/4, 0, -1/4)
"""

import math

import pytest
import torch

from burnish.ops import kl
from burnish.ops.ratios import ratio

LN2 = math.log(2.0)
REVERSE, FORWARD = [0.375 * LN2, -0.0625 * LN2, -0.3125 * LN2], [0.25, 0.0, -0.25]
REF_V = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log()
OLD_V = torch.tensor([0.125, 0.625, 0.25], dtype=torch.float64).log()


def policy():
    z_V = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().requires_grad_()
    return z_V, z_V.log_softmax(0)


def mean_and_gradient(estimate, drawn_V=None):
    """Over all outcomes, each as often as `drawn_V` (log-probs; by default the policy's own) draws it."""
    z_V, logp_V = policy()
    drawn_V = logp_V.detach() if drawn_V is None else drawn_V
    mean = (drawn_V.exp() * estimate(logp_V, drawn_V)).sum()
    (gradient,) = torch.autograd.grad(mean, z_V)
    return mean.item(), gradient.tolist()


def close(value):
    return pytest.approx(value, abs=1e-12)


def test_the_exact_divergences_are_as_by_hand():
    z_V, logp_V = policy()
    for divergence, gradient in (((logp_V.exp() * (logp_V - REF_V)).sum(), REVERSE), ((REF_V.exp() * (REF_V - logp_V)).sum(), FORWARD)):
        assert divergence.item() == close(0.25 * LN2)
        assert torch.autograd.grad(divergence, z_V, retain_graph=True)[0].tolist() == close(gradient)


def test_k1_in_a_loss_says_nothing():
    assert mean_and_gradient(lambda logp, _: kl.k1(logp, REF_V)) == (close(0.25 * LN2), close([0.0] * 3))


def test_k2_has_the_gradient_and_not_the_value():
    """½ (½ + ¼) ln² 2 = 3/8 ln² 2 = 0.1802 beside 0.1733."""
    assert mean_and_gradient(lambda logp, _: kl.k2(logp, REF_V)) == (close(0.375 * LN2**2), close(REVERSE))


def test_k3_has_the_value_and_the_gradient_of_the_other_direction():
    """½ (½ - 1 + ln 2) + 0 + ¼ (2 - 1 - ln 2) = ¼ ln 2."""
    assert mean_and_gradient(lambda logp, _: kl.k3(logp, REF_V)) == (close(0.25 * LN2), close(FORWARD))


@pytest.mark.parametrize("drawn_V", [None, OLD_V], ids=["on-policy", "off-policy"])
def test_in_loss_has_both_wherever_tokens_come_from(drawn_V):
    assert mean_and_gradient(lambda logp, old: kl.in_loss(logp, REF_V, ratio(logp - old)), drawn_V) == (close(0.25 * LN2), close(REVERSE))


def test_off_policy_the_others_are_wrong():
    assert mean_and_gradient(lambda logp, _: kl.k2(logp, REF_V), OLD_V)[1] != pytest.approx(REVERSE, abs=0.05)
    assert mean_and_gradient(lambda logp, _: kl.k3(logp, REF_V), OLD_V)[0] != pytest.approx(0.25 * LN2, abs=0.02)


def two_tokens():
    """Logits of a first token and, for each of them, of a second; log-probs of both in all nine sequences: `[9, 2]`."""
    generator = torch.Generator().manual_seed(1)
    first_V = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    second_VV = torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    logp = torch.stack([first_V.log_softmax(0).repeat_interleave(3), second_VV.log_softmax(1).flatten()], 1)
    return (first_V, second_VV), logp


def gradients(value, leaves):
    return torch.cat([one.flatten() for one in torch.autograd.grad(value, leaves, retain_graph=True)])


def test_in_reward_has_the_gradient_of_whole_sequences_and_in_loss_that_of_each_token():
    """REINFORCE on the sum of k1, over all sequences, is exact. A term of the loss leaves out which first tokens lead to a large
    divergence of the second: of the first token's logits its gradient is that of the first token's divergence alone."""
    leaves, logp = two_tokens()
    _, ref_logp = two_tokens()
    ref_logp = (ref_logp.detach() + torch.randn(9, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).detach()
    ref_logp[:, 0] = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().repeat_interleave(3)
    ref_logp[:, 1] = ref_logp[:, 1].reshape(3, 3).log_softmax(1).flatten()
    p = logp.sum(1).exp()
    exact = gradients((p * (logp - ref_logp).sum(1)).sum(), leaves)
    in_reward = gradients((p.detach() * kl.in_reward(logp, ref_logp).sum(1) * logp.sum(1)).sum(), leaves)
    torch.testing.assert_close(in_reward, exact, rtol=0, atol=1e-12)
    term = kl.in_loss(logp, ref_logp, ratio(logp - logp.detach()))
    in_loss = gradients((p.detach() * term.sum(1)).sum(), leaves)
    torch.testing.assert_close(in_loss[3:], exact[3:], rtol=0, atol=1e-12)
    first = gradients((logp[::3, 0].exp() * (logp - ref_logp)[::3, 0]).sum(), leaves[:1])
    torch.testing.assert_close(in_loss[:3], first, rtol=0, atol=1e-12)
    assert (in_loss - exact).abs().max() > 0.02


def test_the_same_policy_is_at_no_distance():
    logp_N = torch.tensor([-0.1, -3.0, -40.0], requires_grad=True)
    for estimate in (kl.k1, kl.k2, kl.k3):
        assert estimate(logp_N, logp_N.detach()).tolist() == [0.0] * 3
    (gradient,) = torch.autograd.grad(kl.in_loss(logp_N, logp_N.detach(), ratio(logp_N - logp_N.detach())).sum(), logp_N)
    assert gradient.tolist() == [0.0] * 3


@pytest.mark.parametrize(("logp", "ref_logp"), [(-1e4, -1.0), (-1.0, -1e4), (0.0, -100.0)])
def test_far_apart_is_finite(logp, ref_logp):
    logp_N = torch.tensor([logp], requires_grad=True)
    value_N = kl.in_loss(logp_N, torch.tensor([ref_logp]), ratio(logp_N - logp_N.detach()))
    (gradient,) = torch.autograd.grad(value_N.sum(), logp_N)
    assert value_N.isfinite().all()
    assert gradient.isfinite().all()
