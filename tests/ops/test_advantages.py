"""Advantages, by hand. TRL's numbers beside: `test_rollouts_trl.py`."""

import pytest
import torch

from burnish.ops.advantages import (
    group_advantages,
    has_signal,
    leave_one_out,
    normalize_advantages,
    normalize_then_sum,
    total_reward,
)


def of(rewards, groups, *, valid=None, function=group_advantages, **options):
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    valid_B = torch.ones(len(rewards), dtype=torch.bool) if valid is None else torch.tensor(valid)
    return function(reward_B, torch.tensor(groups), valid_B, **options).tolist()


def test_group():
    """Rewards 1, 0, 0, 0: mean 1/4, Σ(r - mean)² = 9/16 + 3/16 = 3/4, std = √(3/4 / 3) = 1/2. So 0.75 / 0.5001 and -0.25 / 0.5001."""
    assert of([1.0, 0.0, 0.0, 0.0], [5, 5, 5, 5]) == pytest.approx([0.75 / 0.5001] + [-0.25 / 0.5001] * 3, abs=1e-12)


def test_batch():
    """Groups (0, 2) and (4, 8), means 1 and 6; all four have mean 3.5 and std √((12.25 + 2.25 + 0.25 + 20.25) / 3) = √(35/3)."""
    std = (35 / 3) ** 0.5 + 1e-4
    assert of([0.0, 2.0, 4.0, 8.0], [0, 0, 1, 1], scale_rewards="batch") == pytest.approx([-1 / std, 1 / std, -2 / std, 2 / std])


def test_none():
    """Dr. GRPO: r - mean alone."""
    assert of([0.0, 2.0, 4.0, 8.0], [0, 0, 1, 1], scale_rewards="none") == [-1.0, 1.0, -2.0, 2.0]


def test_leave_one_out():
    """Rewards 1, 2, 6: the others' means are 4, 7/2 and 3/2, so -3, -3/2 and 9/2."""
    assert of([1.0, 2.0, 6.0], [0, 0, 0], function=leave_one_out) == pytest.approx([-3.0, -1.5, 4.5])


def test_normalize_advantages():
    """-3, -3/2, 9/2: mean 0, Σ = 9 + 9/4 + 81/4 = 63/2, std = √(63/4) = 3.9686."""
    reward_B, group_B, valid_B = torch.tensor([1.0, 2.0, 6.0]), torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.bool)
    advantage_B = leave_one_out(reward_B, group_B, valid_B)
    std = (63 / 4) ** 0.5 + 1e-4
    assert normalize_advantages(advantage_B, reward_B, group_B, valid_B).tolist() == pytest.approx([-3 / std, -1.5 / std, 4.5 / std])


def test_normalize_then_sum():
    """GDPO: rewards (0, 1) and (0, 100) of a pair are both -1/√2 and 1/√2 once normalised (but for the 1e-4), and so their sum,
    ∓√2, has std 2 and ends at ∓1/√2. With sum_then_normalize a hundred times larger rewards would have it all."""
    reward_BK = torch.tensor([[0.0, 100.0], [1.0, 0.0], [0.0, 0.0], [0.5, 50.0]])
    valid_BK, group_B = torch.ones(4, 2, dtype=torch.bool), torch.tensor([0, 0, 1, 1])
    found = normalize_then_sum(reward_BK, group_B, valid_BK, torch.ones(2)).tolist()
    small = [0.5 / (0.5**0.5 + 1e-4), 0.25 / (0.125**0.5 + 1e-4)]
    large = [50 / (5000**0.5 + 1e-4), 25 / (1250**0.5 + 1e-4)]
    sums = torch.tensor([large[0] - small[0], small[0] - large[0], -small[1] - large[1], small[1] + large[1]], dtype=torch.float64)
    assert found == pytest.approx((sums / (sums.std() + 1e-4)).tolist(), abs=1e-12)
    assert abs(found[0]) < 1e-3 < abs(found[2])


def test_total_reward():
    """2 · 1 + 0.5 · 4 = 4; where the first has nothing to say, 0.5 · 4 = 2; where neither has, nothing."""
    nan = float("nan")
    reward_BK = torch.tensor([[1.0, 4.0], [nan, 4.0], [nan, nan]])
    total_B, valid_B = total_reward(reward_BK, ~reward_BK.isnan(), torch.tensor([2.0, 0.5]))
    assert (total_B.tolist(), valid_B.tolist()) == ([4.0, 2.0, 0.0], [True, True, False])


def test_a_failure_is_part_of_no_mean():
    """Of 1, (failed), 0 and 3, -1: the first group's mean is 1/2, whatever stands where the reward failed."""
    for nonsense in (float("nan"), 1e9):
        found = of([1.0, nonsense, 0.0, 3.0, -1.0], [0, 0, 0, 1, 1], valid=[True, False, True, True, True], scale_rewards="none")
        assert found == [0.5, 0.0, -0.5, 2.0, -2.0]
        assert of([1.0, nonsense, 0.0], [0, 0, 0], valid=[True, False, True], function=leave_one_out) == [1.0, 0.0, -1.0]


@pytest.mark.parametrize("rewards", [[0.1] * 3, [0.1 + 0.2] * 7, [1e-300] * 3, [1e15 + 0.3] * 5, [-1 / 3] * 6])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_have_an_advantage_of_exactly_nothing(rewards, scale):
    """Beside a group that differs. The mean of three 0.1 is not 0.1: the rounding, over 1e-4, would be an advantage."""
    groups = [0] * len(rewards) + [1, 1]
    found = of([*rewards, 0.0, 1.0], groups, scale_rewards=scale)
    assert found[:-2] == [0.0] * len(rewards)
    assert found[-1] > 0.0


@pytest.mark.parametrize("rewards", [[0.1] * 3, [1 / 3] * 5])
def test_so_it_is_with_every_other_way(rewards):
    others = [0.1, 0.7, 0.32, 1.0]
    reward_B, valid_B = torch.tensor([*rewards, *others], dtype=torch.float64), torch.ones(len(rewards) + 4, dtype=torch.bool)
    group_B = torch.tensor([0] * len(rewards) + [1] * 4)
    loo_B = leave_one_out(reward_B, group_B, valid_B)
    both = torch.stack([reward_B, 3 * reward_B], 1)
    gdpo_B = normalize_then_sum(both, group_B, valid_B[:, None].expand(-1, 2), torch.tensor([1.0, 0.7]))
    for found_B in (loo_B, normalize_advantages(loo_B, reward_B, group_B, valid_B), gdpo_B):
        assert found_B[:-4].tolist() == [0.0] * len(rewards)
        assert found_B[-1] > 0.1


def test_tiny_differences_are_differences():
    assert of([0.1, 0.1 + 1e-16, 0.1], [0, 0, 0]) != [0.0] * 3


def test_a_group_with_one_valid_completion_teaches_nothing():
    for function in (group_advantages, leave_one_out):
        assert of([1.0, 5.0, 2.0], [0, 0, 1], valid=[True, False, True], function=function) == [0.0] * 3
    assert of([1.0, 5.0, 2.0, 0.0, 1.0], [0, 0, 1, 2, 2], valid=[True, False, True, True, True], function=has_signal) == [
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("function", [group_advantages, leave_one_out])
def test_nothing_depends_on_order(function):
    """Groups are what their ids say: interleaved, of unequal sizes, and named by any numbers."""
    rewards, groups = [1.0, 0.0, 4.0, 2.0, 3.0, 8.0], [7, -3, 7, 7, -3, 100]
    found = of(rewards, groups, function=function)
    order = [4, 2, 5, 0, 3, 1]
    moved = of([rewards[i] for i in order], [groups[i] for i in order], function=function)
    assert moved == pytest.approx([found[i] for i in order], abs=1e-12)
    assert found[1] == -found[4] != 0.0
    assert found[5] == 0.0


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale_rewards is 'std'; choose one of group, batch, none"):
        of([1.0, 0.0], [0, 0], scale_rewards="std")
