"""Ratios and importance weights, by hand. TRL's numbers beside: `test_rollouts_trl.py`."""

import math

import pytest
import torch

from burnish.ops.ratios import LEVELS, effective_sample_size, importance_weights, logp_gap, off_policy_mask, ratio

BRANCH_N, TOKENS_B = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([2, 3, 0])
"""Two completions, interleaved, and one that is left out."""
LOG_N = [math.log(2.0), 0.0, math.log(8.0), math.log(0.5), math.log(4.0)]


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_levels():
    """Completion 0 has the ratios 2 and 8: √16 = 4 each (GSPO, eq. 7). Completion 1 has 1, ½, 4: ∛2 = 1.2599."""
    for name, expected in (("token", [2, 1, 8, 0.5, 4]), ("sequence", [4, 2 ** (1 / 3), 4, 2 ** (1 / 3), 2 ** (1 / 3)])):
        assert ratio(LEVELS[name](leaf(LOG_N), BRANCH_N, TOKENS_B)).tolist() == pytest.approx(expected)
    assert ratio(LEVELS["sequence_token"](leaf(LOG_N), BRANCH_N, TOKENS_B)).tolist() == pytest.approx(expected)


def test_gradients_of_levels():
    """GSPO-token (eq. 14): ∂/∂log π_t of w_t is w of the sequence at t alone; of the sequence's ratio it is w/|y| at each of its tokens."""
    for name, expected in (("sequence_token", [4, 0, 0, 0, 0]), ("sequence", [2, 0, 2, 0, 0]), ("token", [2, 0, 0, 0, 0])):
        logs_N = leaf(LOG_N)
        (gradient,) = torch.autograd.grad(ratio(LEVELS[name](logs_N, BRANCH_N, TOKENS_B))[0], logs_N)
        assert gradient.tolist() == pytest.approx(expected)


def test_ratio_is_one_where_nothing_has_moved():
    logs_N = torch.zeros(3, requires_grad=True)
    assert ratio(logs_N).tolist() == [1.0] * 3
    assert torch.autograd.grad(ratio(logs_N).sum(), logs_N)[0].tolist() == [1.0] * 3


def test_ratio_goes_on_as_a_line():
    """e^16 = 8,886,110.52 at 16 nats, and as much again for each nat beyond; never infinite."""
    logs_N = torch.tensor([15.0, 16.0, 18.0, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    line = math.exp(16)
    assert ratio(logs_N).tolist() == pytest.approx([math.exp(15), line, 3 * line, (1e4 - 15) * line, 0.0])
    assert torch.autograd.grad(ratio(logs_N).sum(), logs_N)[0].tolist()[2:] == pytest.approx([line, line, 0.0])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_truncate", [2, 1, 3, 0.75, 3]),
        ("token_mask", [2, 1, 0, 0, 0]),
        ("sequence_truncate", [3, 2, 3, 2, 2]),
        ("sequence_mask", [0, 2, 0, 2, 2]),
    ],
)
def test_importance_weights(mode, expected):
    """Between 0.75 and 3: the ratios are 2, 8 and 1, ½, 4; of whole completions 16 and 2."""
    weight_N = importance_weights(leaf(LOG_N), torch.zeros(5), BRANCH_N, TOKENS_B, mode=mode, clip_max=3.0, clip_min=0.75)
    assert weight_N.tolist() == pytest.approx(expected)
    assert not weight_N.requires_grad


def test_a_token_that_the_sampler_did_not_score_weighs_one():
    sampled_N = torch.tensor([0.0, math.nan, math.nan, 0.0, 0.0])
    assert importance_weights(leaf(LOG_N), sampled_N, BRANCH_N, TOKENS_B, mode="token_mask", clip_max=None).tolist() == pytest.approx(
        [2, 1, 1, 0.5, 4]
    )
    assert importance_weights(leaf(LOG_N), sampled_N, BRANCH_N, TOKENS_B, mode="sequence_truncate").tolist() == pytest.approx([2] * 5)
    assert logp_gap(leaf(LOG_N), sampled_N).tolist() == pytest.approx([math.log(2), 0, 0, math.log(2), math.log(4)])


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_far_off_is_finite(mode):
    weight_N = importance_weights(leaf([1e4] * 5), torch.zeros(5), BRANCH_N, TOKENS_B, mode=mode, clip_max=None)
    assert weight_N.isfinite().all()
    assert importance_weights(leaf([1e4] * 5), torch.zeros(5), BRANCH_N, TOKENS_B, mode=mode).max() <= 3.0


@pytest.mark.parametrize("given", [{"mode": "sequence"}, {"clip_max": 0.5, "clip_min": 0.5}])
def test_contradictions_are_refused(given):
    with pytest.raises(ValueError, match="choose"):
        importance_weights(leaf(LOG_N), torch.zeros(5), BRANCH_N, TOKENS_B, **given)


def test_off_policy_mask():
    """DeepSeek-V3.2, eq. 9: mean log μ/π is -½ ln 16 = -1.39 in completion 0, -⅓ ln 2 = -0.23 in 1, and the reverse with signs changed.

    So with log μ - log π = +1.39 and +0.23 and a threshold of ½, completion 0 is dropped where its advantage is negative, alone.
    """
    logp_N = -torch.tensor(LOG_N)
    for advantages, kept in (([-1.0, -1.0], [False, True]), ([1.0, -1.0], [True, True]), ([0.0, 0.0], [True, True])):
        advantage_N = torch.tensor(advantages)[BRANCH_N]
        found_N = off_policy_mask(advantage_N, logp_N, torch.zeros(5), BRANCH_N, TOKENS_B, threshold=0.5)
        assert found_N.tolist() == torch.tensor(kept)[BRANCH_N].tolist()
    assert off_policy_mask(-torch.ones(5), -logp_N, torch.zeros(5), BRANCH_N, TOKENS_B, threshold=0.5).all()


def test_effective_sample_size():
    """(1 + 1 + 2)² / (3 · 6) = 16/18; alike: 1; all in one: 1/3."""
    for weights, expected in (([1.0, 1.0, 2.0], 16 / 18), ([0.7] * 3, 1.0), ([0.0, 0.0, 5.0], 1 / 3), ([0.0] * 3, 0.0)):
        assert effective_sample_size(torch.tensor(weights)).tolist() == pytest.approx(expected)
