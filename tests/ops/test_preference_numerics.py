"""Every preference loss: gradients against finite differences, and finite values and gradients at log-ratios of ±10,000."""

import inspect
import itertools
from functools import partial

import pytest
import torch

from burnish.ops import unpaired
from burnish.ops.bradley_terry import bradley_terry_loss, centring_loss
from burnish.ops.divergences import DIVERGENCES, DIVERGENCES_AS_IN_TRL
from burnish.ops.preference import Pairs
from burnish.ops.reference_free import odds_ratio_loss
from tests.ops.preference_pairs import PAIRED, REFERENCE_FREE, pairs_of

SCORES = {**DIVERGENCES, "alpha_divergence as in TRL": DIVERGENCES_AS_IN_TRL["alpha_divergence"]}


def paired(loss, name, **options):
    beta = {} if name.startswith("sft") else options

    def run(chosen, rejected, reference):
        ones = torch.ones_like(chosen)
        return loss(pairs_of(chosen, rejected, reference, reference - 1, 3 * ones, 5 * ones), **beta)

    return run


def free(loss, **options):
    def run(chosen, rejected, _):
        ones = torch.ones_like(chosen)
        pairs = Pairs(chosen_logp_P=chosen, rejected_logp_P=rejected, chosen_tokens_P=3 * ones, rejected_tokens_P=5 * ones)
        return loss(pairs, **options)

    return run


def labelled(loss, **options):
    def run(chosen, rejected, reference):
        ratios = torch.cat([chosen - reference, rejected - reference])
        return loss(ratios, torch.arange(len(ratios), device=ratios.device) < len(chosen), **options)

    return run


def cases(beta):
    """Name → loss of (chosen, rejected, reference) log-probs."""
    found = {}
    for name, loss in PAIRED.items():
        found[name] = paired(loss, name, beta=beta)
        inner = loss.func if isinstance(loss, partial) else loss
        if "divergence" in inspect.signature(inner).parameters:
            for score in SCORES:
                found[f"{name}, {score}"] = paired(loss, name, beta=beta, divergence=SCORES[score])
    found |= {name: free(loss, beta=beta) for name, loss in REFERENCE_FREE.items()}
    found["orpo"] = free(odds_ratio_loss)
    found["kto"] = labelled(unpaired.kto_loss, beta=beta, kl=0.7, desirable_weight=1.1, undesirable_weight=0.9)
    found["apo_zero_unpaired"] = labelled(unpaired.apo_zero_unpaired_loss, beta=beta, desirable_weight=1.1)
    found["bco"] = labelled(unpaired.bco_loss, beta=beta, delta=0.2)
    found["bradley_terry"] = lambda chosen, rejected, reference: bradley_terry_loss(chosen, rejected, reference)
    found["centring"] = lambda chosen, rejected, reference: centring_loss(chosen, rejected)
    return found


CASES = sorted(cases(0.1))


@pytest.mark.parametrize("name", CASES)
def test_finite_differences(name):
    """In float64, of the sum over four pairs; z is small enough that no loss is flat."""
    generator = torch.Generator().manual_seed(len(name))
    chosen, rejected = (-3 * torch.rand(4, generator=generator, dtype=torch.float64) - 1 for _ in range(2))
    reference = -3 * torch.rand(4, generator=generator, dtype=torch.float64) - 1
    loss = cases(0.3)[name]
    leaves = (chosen.requires_grad_(), rejected.requires_grad_())
    assert torch.autograd.gradcheck(lambda *given: loss(*given, reference).sum(), leaves, eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.01, 0.1, 2.5])
@pytest.mark.parametrize("name", CASES)
def test_extreme_log_probs(name, beta, dtype):
    """Every combination of log-probs 0, -1e-6, -50 and -10,000 of policy and reference: differences up to ±10,000."""
    levels = torch.tensor([0.0, -1e-6, -50.0, -1e4], dtype=dtype)
    chosen, rejected, reference = (torch.stack(part).clone() for part in zip(*itertools.product(levels, repeat=3), strict=True))
    leaves = (chosen.requires_grad_(), rejected.requires_grad_())
    values = cases(beta)[name](chosen, rejected, reference)
    gradients = torch.autograd.grad(values.sum(), leaves, allow_unused=True)
    assert values.dtype == dtype
    assert values.isfinite().all()
    for gradient in gradients:
        assert gradient is None or gradient.isfinite().all()
        assert gradient is None or gradient.square().sum().isfinite(), "its squared norm is needed for clipping"


@pytest.mark.parametrize("divergence", SCORES)
def test_the_pair_that_is_furthest_off_still_has_a_gradient(divergence):
    """Its chosen is pushed up, whatever the divergence: a clamp would leave it where it is."""
    chosen = torch.tensor([-1e4], requires_grad=True)
    rejected = torch.tensor([-1.0], requires_grad=True)
    loss = cases(0.1)[f"sigmoid, {divergence}"](chosen, rejected, torch.tensor([-1.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), [chosen])
    assert gradient.tolist()[0] < -0.05
