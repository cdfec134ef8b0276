"""From tokens to branches, by hand: branch 0 has three tokens, branch 1 two, branch 2 none; in the row they lie as 0 1 0 0 1."""

import math

import pytest
import torch

from burnish.ops.weighting import length_desensitised, place_in_branch, wpo_weight

BRANCH = torch.tensor([0, 1, 0, 0, 1])


def test_place_in_branch():
    assert place_in_branch(BRANCH, 3).tolist() == [0, 0, 1, 2, 1]


def test_length_desensitised():
    """Two tokens are shared; α = ½ halves the third of branch 0: -1 - 4 - 8/2 and -2 - 16. Its gradient is the weights."""
    logp = torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0], requires_grad=True)
    found = length_desensitised(logp, BRANCH, torch.tensor([2, 2, 2]), ld_alpha=0.5)
    assert found.tolist() == [-9.0, -18.0, 0.0]
    (weights,) = torch.autograd.grad(found.sum(), logp)
    assert weights.tolist() == [1.0, 1.0, 1.0, 0.5, 1.0]


def test_length_desensitised_at_its_ends():
    """α = 1 is the sum; α = 0 leaves the tail out."""
    logp = torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0])
    assert length_desensitised(logp, BRANCH, torch.tensor([2, 2, 2]), ld_alpha=1.0).tolist() == [-13.0, -18.0, 0.0]
    assert length_desensitised(logp, BRANCH, torch.tensor([2, 2, 2]), ld_alpha=0.0).tolist() == [-5.0, -18.0, 0.0]


def test_wpo_weight():
    """Branch 0: p = ½, ½, ¼ where Σp² = ½: ratios 1, 1, ½, whose geometric mean is 2^(-1/3); branch 1: ¾ and ¾ over 3/8: 2."""
    logp = torch.tensor([0.5, 0.75, 0.5, 0.25, 0.75]).log().requires_grad_()
    log_sum_sq = torch.tensor([0.5, 0.375, 0.5, 0.5, 0.375]).log()
    found = wpo_weight(logp, log_sum_sq, BRANCH, 2)
    assert found.tolist() == pytest.approx([2 ** (-1 / 3), 2.0], abs=1e-6)
    assert not found.requires_grad


def test_wpo_weight_of_an_even_guess():
    """Over V equally likely tokens p = 1/V = Σp²: a weight of 1 whatever the length."""
    even = torch.full((5,), -math.log(50))
    assert wpo_weight(even, even, BRANCH, 2).tolist() == [1.0, 1.0]
