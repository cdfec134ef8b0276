"""What is logged of rollouts, each number by hand."""

import math

import pytest

from burnish.ops.reduce import add, means
from burnish.rewards.samples import Failure
from burnish.rollout.groups import Group
from burnish.rollout.measure import deviation, measured
from tests.rollout.made import group, prompt, rollout, said

FAILURE = Failure("raised KeyError", "KeyError: 'x'")


def of(groups, totals, names=("f",)):
    return means(measured(groups, totals, names))


def test_rewards():
    """Groups (0, 1), (1, 1) and (2, none): the mean of five is 1; deviations √½, 0 and 0 (of one); means ½, 1, 2 with deviation
    √(7/12) = 0.763763, over √3 = 0.440959. Two of three groups have nothing to compare."""
    groups = [group(0.0, 1.0), group(1.0, 1.0), group(2.0, None)]
    found = of(groups, [(0.0, 1.0), (1.0, 1.0), (2.0, None)])
    assert found["reward"] == 1.0
    assert found["reward_std"] == pytest.approx(math.sqrt(0.5) / 3)
    assert found["reward_stderr"] == pytest.approx(0.440959, abs=1e-6)
    assert found["frac_reward_zero_std"] == pytest.approx(2 / 3)
    assert found["frac_groups_with_signal"] == pytest.approx(1 / 3)
    assert found["rewards/none"] == pytest.approx(1 / 6)


def test_the_error_of_several_steps():
    """Means 0 and 1, then 0 and 3, of two steps: errors ½ and 3/2, of their mean √(¼ + 9/4) / 2 = 0.790569, as of steps on two ranks."""
    steps = [measured([group(0.0), group(one)], [(0.0,), (one,)], ("f",)) for one in (1.0, 3.0)]
    assert [means(step)["reward_stderr"] for step in steps] == pytest.approx([0.5, 1.5])
    both = add(dict(steps[0]), steps[1])
    assert means(both)["reward_stderr"] == pytest.approx(0.790569, abs=1e-6)
    assert means(both)["reward"] == 1.0


def test_functions_and_their_failures():
    """f gives 1 and 3 (mean 2, deviation √2) and fails once; g gives 5 to the one that f fails on, and nothing else."""
    one = Group(
        prompt=prompt(),
        rollouts=(rollout(0, rewards=(1.0, None)), rollout(1, rewards=(3.0, None)), rollout(2, rewards=(FAILURE, 5.0))),
        metrics={"length": [2.0, 4.0]},
    )
    found = of([one], [(1.0, 3.0, None)], ("f", "g"))
    assert found["rewards/f/mean"] == 2.0
    assert found["rewards/f/std"] == pytest.approx(math.sqrt(2))
    assert (found["rewards/g/mean"], found["rewards/g/std"]) == (5.0, 0.0)
    assert found["rewards/failed"] == found["rewards/failed/raised KeyError"] == pytest.approx(1 / 3)
    assert found["length"] == 3.0
    assert found["reward"] == 2.0, "the failure is no 0"


def test_completions():
    """Lengths 1, 2 and 3 of 3 rollouts, the last cut off, the first two the same tokens but for the end."""
    group = Group(
        prompt=prompt(),
        rollouts=(rollout(0, said(-1.0)), rollout(1, said(-1.0, -1.0)), rollout(2, said(-1.0, -1.0, -1.0), reason="length")),
    )
    found = of([group, group], [(0.0, 1.0, 2.0)] * 2)
    names = [f"completions/{kind}_{infix}length" for infix in ("", "terminated_") for kind in ("mean", "min", "max")]
    assert [found[name] for name in names] == [2.0, 1.0, 3.0, 1.5, 1.0, 2.0]
    assert found["completions/clipped_ratio"] == pytest.approx(1 / 3)
    assert found["completions/unique_ratio"] == 1.0


def test_completions_that_are_the_same():
    """Of four completions of a prompt two are distinct: the share is ½, whatever another prompt has."""
    same = Group(prompt=prompt(), rollouts=(*(rollout(i, said(-1.0)) for i in range(3)), rollout(3, said(-1.0, first=9))))
    assert of([same, same], [(0.0,) * 4] * 2)["completions/unique_ratio"] == 0.5


def test_tools_are_not_counted_as_completions():
    """Two tokens sampled, five of a tool's in between; 3 calls in 2 rollouts, one of which failed."""
    from burnish.types import Segment

    tool = Segment(token_ids=[1, 2, 3, 4, 5], source="tool", trained=False)
    counts = {"tools/call_frequency": 2.0, "tools/failures": 1.0}
    both = (rollout(0, said(-1.0), tool, said(-1.0), counts=counts), rollout(1, counts={"tools/call_frequency": 1.0}))
    found = of([Group(prompt=prompt(), rollouts=both)], [(0.0, 1.0)])
    assert found["completions/max_length"] == 2.0
    assert found["tools/call_frequency"] == 1.5
    assert found["tools/failure_frequency"] == pytest.approx(1 / 3)
    assert "tools/failures" not in found


def test_no_rewards_at_all():
    found = of([group(None, None)], [(None, None)])
    assert "reward" not in found
    assert found["rewards/none"] == found["frac_reward_zero_std"] == 1.0


def test_deviation():
    """Of 1 and 3: √2; of one or none 0."""
    assert deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert deviation([7.0]) == deviation([]) == 0.0
