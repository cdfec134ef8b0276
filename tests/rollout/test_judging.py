"""From rewards to advantages, and the divergence in the reward, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from burnish.config.grpo import GRPOConfig
from burnish.config.rloo import RLOOConfig
from burnish.methods import grpo, rloo
from burnish.rewards.samples import Failure
from burnish.rollout.groups import Group, Path
from burnish.rollout.judging import divergences, reference_logps, reward_table
from burnish.types import Segment
from tests.rollout.made import group, prompt, rollout, said

ROOT = math.sqrt(0.5)
"""The deviation of 0 and 1."""


def of_two(*rewards):
    return Group(prompt=prompt(), rollouts=tuple(rollout(i, rewards=one) for i, one in enumerate(rewards)))


def test_the_table():
    """A rollout of which one reward failed has none at all; one of which a function says nothing has the others."""
    table = reward_table([of_two((1.0, Failure("raised KeyError")), (2.0, None)), of_two((0, 3.0), (None, None))])
    assert table.reward_BK.tolist() == [[0, 0], [2, 0], [0, 3], [0, 0]]
    assert table.valid_BK.tolist() == [[False, False], [True, False], [True, True], [False, False]]
    assert table.group_B.tolist() == [0, 0, 1, 1]


def test_a_failure_is_in_no_mean():
    """Rewards 1, 0 and a failure: the mean is ½ and the deviation √½, so A = ±½ / (√½ + 1e-4), and 0 for the failure."""
    judged = grpo.judge([group(1.0, Failure("raised KeyError"), 0.0)], [1.0], None, GRPOConfig())
    wanted = 0.5 / (ROOT + 1e-4)
    assert judged.advantages == ((pytest.approx(wanted), 0.0, pytest.approx(-wanted)),)
    assert judged.rewards == ((1.0, None, 0.0),)


def test_weights():
    """2 · 1 - 3 · 0.5 = 0.5 and 2 · 0 - 3 · 1 = -3; leave one out of two: ±3.5."""
    judged = rloo.judge([of_two((1.0, 0.5), (0.0, 1.0))], [2.0, -3.0], None, RLOOConfig(beta=0.0))
    assert judged.rewards == ((0.5, -3.0),)
    assert judged.advantages == ((3.5, -3.5),)


def test_kl_in_the_reward_of_rloo():
    """Rewards 1 and 0, log-ratios 2 and -4, β = 0.1: 1 - 0.2 = 0.8 and 0 + 0.4 = 0.4, so A = ±0.4. What is logged is 1 and 0."""
    divergence_B = torch.tensor([2.0, -4.0], dtype=torch.float64)
    judged = rloo.judge([group(1.0, 0.0)], [1.0], divergence_B, RLOOConfig(beta=0.1))
    assert judged.advantages == ((pytest.approx(0.4), pytest.approx(-0.4)),)
    assert judged.rewards == ((1.0, 0.0),)
    assert judged.metrics == {"kl": (-2.0, 2)}


def test_kl_in_the_reward_of_grpo():
    """The same: 0.8 and 0.4, mean 0.6, deviation 0.4 · √½ = 0.2828427."""
    judged = grpo.judge([group(1.0, 0.0)], [1.0], torch.tensor([2.0, -4.0], dtype=torch.float64), GRPOConfig(beta=0.1, kl_in_reward=True))
    assert judged.advantages[0] == (pytest.approx(0.2 / (0.4 * ROOT + 1e-4)), pytest.approx(-0.2 / (0.4 * ROOT + 1e-4)))


def test_clipped_rewards_of_rloo():
    """Rewards 5 and -1 brought to 1 and 0."""
    judged = rloo.judge([group(5.0, -1.0)], [1.0], None, RLOOConfig(beta=0.0, reward_clip_range=[0.0, 1.0]))
    assert judged.advantages == ((1.0, -1.0),)
    assert judged.rewards == ((5.0, -1.0),)


def test_scales():
    """Groups (0, 1) and (0, 3): deviations √½ and 3 √½; of the batch 0, 1, 0, 3: mean 1, squares 1 + 0 + 1 + 4 = 6, √2. None: ½ and 1.5."""
    groups = [group(0.0, 1.0), group(0.0, 3.0)]
    judged = {scale: grpo.judge(groups, [1.0], None, GRPOConfig(scale_rewards=scale)).advantages for scale in ("group", "batch", "none")}
    assert judged["group"] == ((pytest.approx(-0.5 / (ROOT + 1e-4)), pytest.approx(0.5 / (ROOT + 1e-4))),) + (
        (pytest.approx(-1.5 / (3 * ROOT + 1e-4)), pytest.approx(1.5 / (3 * ROOT + 1e-4))),
    )
    scale = math.sqrt(2) + 1e-4
    assert judged["batch"][1] == (pytest.approx(-1.5 / scale), pytest.approx(1.5 / scale))
    assert judged["none"] == ((-0.5, 0.5), (-1.5, 1.5))


def test_each_reward_normalised_first():
    """f: 0 and 1, g: 10 and 0: ∓0.5 / (√½ + 1e-4) = ∓0.7070068 and ±5 / (10 √½ + 1e-4) = ±0.7070968, so the sums are ±9.0e-5, and not ±9/2.

    Their deviation is √2 · 9.0e-5 = 1.2727e-4: A = ±9.0e-5 / 2.2727e-4 = ±0.39596.
    """
    args = GRPOConfig(multi_objective_aggregation="normalize_then_sum")
    judged = grpo.judge([of_two((0.0, 10.0), (1.0, 0.0))], [1.0, 1.0], None, args)
    assert judged.rewards == ((10.0, 1.0),)
    assert judged.advantages[0] == (pytest.approx(0.39596, abs=1e-5), pytest.approx(-0.39596, abs=1e-5))


def test_a_divergence_that_is_rounding_is_none():
    """Two tokens: 1.9e-5 nats in all are within 1e-5 a token, and 2.1e-5 are not."""
    both = Group(prompt=prompt(), rollouts=(rollout(0), rollout(1)))
    reference = [np.array([-1.0 - 1.9e-5, -2.0, -1.0, -2.0 + 2.1e-5])]
    assert divergences([both], reference_logps([both], lambda examples: reference)).tolist() == [0.0, pytest.approx(-2.1e-5)]


def test_divergences_over_whole_completions():
    """Behaviour -1, -2 against -1.5, -3.5: 0.5 + 1.5 = 2. A tool's tokens count nothing. A second path, with a prompt of its own, is
    added: -4 against -3: 1 less, so 1 in all. The other rollout: -1 against -1.25: ¼."""
    context, tool = (Segment(token_ids=[7, 8], source=source, trained=False) for source in ("prompt", "tool"))
    two = rollout(0, paths=(Path(segments=(said(-1.0), tool, said(-2.0))), Path(segments=(context, said(-4.0)), own_prompt=True)))
    asked = []

    def ref_logps(examples):
        asked.append([(one.trained_tokens, len(one)) for one in examples])
        return [np.array([-1.5, -3.5, -1.25]), np.array([-3.0])]

    groups = [Group(prompt=prompt(), rollouts=(two, rollout(1, said(-1.0))))]
    known = reference_logps(groups, ref_logps)
    assert [[one.tolist() for one in group] for group in known] == [[[-1.5, -3.5, -3.0], [-1.25]]]
    found = divergences(groups, known)
    assert found.tolist() == [1.0, 0.25]
    assert found.dtype == torch.float64
    assert asked == [[(3, 3 + 1 + 2 + 1 + 1), (1, 3)]]
