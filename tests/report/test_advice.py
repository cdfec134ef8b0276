"""Sentences about runs that go nowhere: each once, when it has been so for three steps in a row."""

import pytest

from burnish.report.advice import PATIENCE, Advice

GOOD = {"frac_groups_with_signal": 0.5, "completions/clipped_ratio": 0.3, "completions/unique_ratio": 0.9, "rewards/failed": 0.0}
BAD = {
    "Every group is tied, all rewards 0.25: the task is too easy or too hard": {"frac_groups_with_signal": 0.0, "reward": 0.25},
    "Every completion is cut off by max_completion_length before it ends": {"completions/clipped_ratio": 1.0},
    "Most completions of a prompt are the same": {"completions/unique_ratio": 0.2},
    "5% of the completions have no reward, because a reward failed": {"rewards/failed": 0.05},
    "The sampler's log-probs are 0.2 nats from the trainer's": {"sampling/sampling_logp_difference/mean": 0.2},
}


@pytest.mark.parametrize("sentence", BAD)
def test_said_once_after_three_steps_in_a_row(sentence):
    advice, bad = Advice(), GOOD | BAD[sentence]
    assert [advice.of(bad) for _ in range(PATIENCE - 1)] == [[], []]
    assert advice.of(GOOD) == []
    assert [advice.of(bad) for _ in range(PATIENCE - 1)] == [[], []], "counted anew"
    (said,) = advice.of(bad)
    assert said.startswith(sentence)
    assert said.endswith(".")
    assert not any(advice.of(means) for means in (bad, bad, GOOD, bad, bad, bad))


def test_several_at_once():
    advice = Advice()
    bad = GOOD | {"completions/clipped_ratio": 1.0, "completions/unique_ratio": 0.1}
    assert [len(advice.of(bad)) for _ in range(4)] == [0, 0, 2, 0]


def test_what_is_not_measured_is_not_spoken_of():
    assert not any(Advice().of({}) for _ in range(5))
