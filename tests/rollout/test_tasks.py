"""Evaluation by sampling: which options, how many completions, and what is a success."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from burnish.config.grpo import GRPOConfig
from burnish.config.values import ConfigError
from burnish.methods import grpo
from burnish.rollout.collect import Collected
from burnish.rollout.sampler import Sampling
from burnish.rollout.tasks import Tasks, pass_at, sampling_of
from tests.rollout.made import group

TRAINING = Sampling(temperature=1.3, top_k=7, stop_token_ids=(2,), seed=4)


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_pass_at_k_is_the_share_of_choices_with_one_that_is_right(n):
    """Counted over all choices of k of n."""
    for right in range(n + 1):
        for k in range(1, n + 1):
            choices = list(combinations([True] * right + [False] * (n - right), k))
            assert pass_at(k, n, right) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_by_hand():
    """1 of 4 is right: 1 - C(3,1)/C(4,1) = ¼, 1 - 3/6 = ½, 1 - 0/1 = 1."""
    assert [pass_at(k, 4, 1) for k in (1, 2, 4)] == [0.25, 0.5, 1.0]


def test_sampling_as_in_training_but_for_what_is_said():
    assert sampling_of(TRAINING, GRPOConfig(), "eval") == TRAINING
    greedy = sampling_of(TRAINING, GRPOConfig(eval_sampling={"temperature": 0}), "eval_any")
    assert (greedy.temperature, greedy.top_k, greedy.stop_token_ids, greedy.seed) == (0.0, 7, (2,), 4)


def test_sampling_by_the_name_of_a_set():
    args = GRPOConfig(eval_sampling={"easy": {"temperature": 0}, "hard": {"top_p": 0.5, "min_p": 0.1}})
    easy, hard, other = (sampling_of(TRAINING, args, f"eval_{name}") for name in ("easy", "hard", "other"))
    assert (easy.temperature, easy.top_p) == (0.0, 1.0)
    assert (hard.temperature, hard.top_p, hard.min_p) == (1.3, 0.5, 0.1)
    assert other == TRAINING


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"temprature": 1}, "eval_sampling has no option 'temprature'; it has temperature, top_k, top_p, min_p, repetition_penalty, "),
        ({"easy": {"max_completion_length": 4}}, "eval_sampling has no option 'max_completion_length'; "),
        ({"easy": {"top_p": 1.5}}, "top_p"),
    ],
)
def test_options_that_are_none(said, wrong):
    with pytest.raises(ConfigError, match=wrong):
        sampling_of(TRAINING, GRPOConfig(eval_sampling=said), "eval_easy")


class Prompts(list):
    def all(self):
        return iter(self)


def evaluated(groups, **options):
    asked, args = [], GRPOConfig(**options)

    def collect(prompts, n, sampling, step):
        asked.append((len(prompts), n, sampling.temperature, step))
        return Collected(groups=tuple(groups), sampled=0, sampling_seconds=0.0, scoring_seconds=0.0)

    tasks = Tasks(args, collect, lambda given: grpo.judge(given, [1.0], None, args), TRAINING, ["f"])
    found, same, judged = tasks("eval", Prompts(range(len(groups))), 5)
    assert tuple(groups) == tuple(same)
    assert len(judged.rewards) == len(groups)
    return found, asked


def test_success():
    """Of four completions 2, 1 and 0 are right, at a reward of 1 or more (None is none): shares ½, ¼ and 0, mean ¼, deviation ¼,
    over √3. pass@2: 1 - 1/6, 1 - 3/6 and 0: 4/9. pass@4: 1, 1 and 0. The mean reward is over the 11 that have one: 5.1/11."""
    groups = [group(1.0, 1.5, 0.0, 0.6), group(1.0, 0.0, 0.5, None), group(0.0, 0.5, 0.0, 0.0)]
    found, asked = evaluated(groups, num_generations_eval=4)
    assert asked == [(3, 4, 1.3, 5)]
    assert found["accuracy"] == pytest.approx(0.25)
    assert found["accuracy_stderr"] == pytest.approx(0.25 / math.sqrt(3))
    assert found["pass@2"] == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)
    assert found["pass@4"] == pytest.approx(2 / 3)
    assert found["reward"] == pytest.approx(5.1 / 11)
    assert found["rewards/f/mean"] == found["reward"]
    assert "pass@1" not in found
    assert "frac_reward_zero_std" not in found


def test_another_threshold():
    found, _ = evaluated([group(0.4, 0.6)], success_reward=0.5, num_generations_eval=2)
    assert (found["accuracy"], found["accuracy_stderr"], found["pass@2"]) == (0.5, 0.0, 1.0)


def test_the_most_likely_tokens_are_sampled_once():
    found, asked = evaluated([group(1.0), group(0.0)], eval_sampling={"temperature": 0}, num_generations=8)
    assert asked == [(2, 1, 0.0, 5)]
    assert found["accuracy"] == 0.5
    assert not [name for name in found if name.startswith("pass@")]


def test_as_many_as_in_training():
    assert evaluated([group(*[0.0] * 6)], num_generations=6)[1][0][1] == 6
