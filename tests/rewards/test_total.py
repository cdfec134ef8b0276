"""From failures to the end of a run, and the call before the first."""

from __future__ import annotations

import pytest

from burnish.rewards.contract import reward_func
from burnish.rewards.dry_run import dry_run
from burnish.rewards.pool import RewardPool
from burnish.rewards.samples import Failure, RewardError
from burnish.rewards.total import FailureCount

FAILED = Failure("raised KeyError", "KeyError: 'x' (line 3 of r.py)\nmore")


def test_failures_are_counted_by_name_and_reason_once_for_each_completion():
    count = FailureCount(["f", "g"], 0.8)
    found = count.add([[1.0, FAILED], [FAILED, FAILED], [None, None], [1.0, 1.0]])
    assert found == {"g: raised KeyError": 2, "f: raised KeyError": 1, "no reward has anything to say of it": 1}
    count.add([[1.0, FAILED]])
    assert count.reasons["g: raised KeyError"] == 3


def test_too_many_failures_end_the_run():
    """Of 64 and 64 completions 25 failed, 19.5%; and one more is 20.3%. Of the two steps the first then no longer counts: 26 of 64."""
    count = FailureCount(["f"], 0.2)
    count.add([[FAILED]] * 12 + [[1.0]] * 52)  # 18.75%
    said = (
        r"^13 of the last 64 completions have no reward because a function failed, more than max_reward_failures=0.2 allows; the last "
        r"failure is that 'f' raised KeyError: KeyError: 'x' \(line 3 of r.py\); mend it, or allow more\.$"
    )
    with pytest.raises(RewardError, match=said):
        count.add([[FAILED]] * 13 + [[1.0]] * 51)


def test_small_steps_are_counted_together():
    """One failure of 8 in each step; five of 40 in the first five; and 2 of the next 8 are 7 of 48, 14.6%. Half of a step alone is 50%."""
    count = FailureCount(["f"], 0.2)
    for _ in range(5):
        count.add([[FAILED]] + [[1.0]] * 7)
    count.add([[FAILED]] * 2 + [[1.0]] * 6)
    with pytest.raises(RewardError, match="^4 of the last 8 "):
        FailureCount(["f"], 0.2).add([[FAILED]] * 4 + [[1.0]] * 4)


def test_old_steps_are_forgotten():
    """1000 steps without a failure do not hide that all of the last 64 completions failed; 7 of 64 in the first is 10.9%."""
    count = FailureCount(["f"], 0.2)
    for _ in range(1000):
        count.add([[1.0]] * 64)
    with pytest.raises(RewardError, match="^64 of the last 64 "):
        count.add([[FAILED]] * 64)


def test_no_failure_is_allowed_where_the_share_is_0_and_any_where_it_is_1():
    with pytest.raises(RewardError, match="^1 of the last 9 "):
        FailureCount(["f"], 0.0).add([[FAILED]] + [[1.0]] * 8)
    FailureCount(["f"], 1.0).add([[FAILED]] * 9)


ROWS = [
    {"prompt": "1 + 1", "answer": "2"},
    {"prompt": [{"role": "user", "content": "1 + 2"}], "answer": None, "completion": "3"},
    {"prompt": "2 + 2"},
]


def run(function):
    with RewardPool([reward_func(function)], workers=1, timeout=5.0, memory_mib=None) as pool:
        dry_run(pool, ROWS)


def test_a_dry_run_sees_two_rows():
    """The completion is of the prompt's kind; a third row is not looked at."""

    def reward(completions, prompts, completion_ids, answer):
        text = "This is a made-up answer."
        assert completions in ([text], [[{"role": "assistant", "content": text}]])
        assert isinstance(completions[0], str) == isinstance(prompts[0], str)
        assert len(completion_ids[0]) == 6
        return [None]

    run(reward)


def test_what_a_dry_run_refuses():
    def reward(completions, answer):
        return [float(answer[0])]

    line = reward.__code__.co_firstlineno + 1
    said = (
        r"^The reward 'reward' fails on row 1 with a made-up answer: it raised TypeError: TypeError: float\(\) argument must be a string "
        rf"or a real number, not 'NoneType' \(line {line} of {__file__}\); mend it before training\.$"
    )
    with pytest.raises(RewardError, match=said):
        run(reward)
    with pytest.raises(RewardError, match=r"row 0 with a made-up answer: it returned 2 rewards for 1 completions; mend it"):
        run(lambda completions: [1.0, 2.0])
    with pytest.raises(RewardError, match=r"row 0 with a made-up answer: it needs the column 'solution', which the row does not "):
        run(lambda completions, solution: [1.0])
