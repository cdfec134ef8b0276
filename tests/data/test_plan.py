import numpy as np
import pytest

from burnish.data.plan import plan_step


def test_worked_example():
    """[5, 3, 2, 2] in bins of 8: longest first gives {5, 2} and {3, 2}."""
    assert plan_step([5, 3, 2, 2], 8) == [[[0, 3], [1, 2]]]
    assert plan_step([5, 3, 2, 2], 12) == [[[0, 1, 2, 3]]]


def test_an_example_over_the_budget_stands_alone():
    assert plan_step([20, 3, 3], 8) == [[[0], [1, 2]]]
    assert plan_step([20], 8, ranks=2) == [[[0]], [[]]]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_example_once_within_budget_and_equal_micro_steps(ranks):
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 60, rng.integers(1, 40)).tolist()
        plan = plan_step(lengths, 100, ranks)
        assert sorted(i for rank in plan for micro in rank for i in micro) == list(range(len(lengths)))
        assert len({len(rank) for rank in plan}) == 1
        assert all(sum(lengths[i] for i in micro) <= 100 for rank in plan for micro in rank)


def test_ranks_are_balanced():
    lengths = np.random.default_rng(1).integers(10, 400, 64).tolist()
    loads = [sum(lengths[i] for micro in rank for i in micro) for rank in plan_step(lengths, 2000, 4)]
    assert max(loads) / min(loads) < 1.05
