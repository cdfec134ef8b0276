"""What may be said of rewards."""

import pytest

from burnish.config.rewards import RewardsConfig
from burnish.config.values import ConfigError


def test_a_lone_name_is_a_list():
    args = RewardsConfig(reward_funcs="accuracy", reward_weights=2, reward_kwargs={"accuracy": {"solution": "gold"}})
    assert (args.reward_funcs, args.reward_weights, args.reward_timeout, args.reward_memory) == (["accuracy"], [2.0], 60.0, 4096)
    assert args.reward_kwargs == {"accuracy": {"solution": "gold"}}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"reward_funcs": []}, r"^reward_funcs is an empty list; name at least one reward\.$"),
        (
            {"reward_funcs": ["a", "b"], "reward_weights": [1.0]},
            r"^reward_weights=\[1.0\] must have one weight for each of reward_funcs=\[",
        ),
        ({"reward_funcs": ["a"], "reward_kwargs": {"b": {}}}, r"^reward_kwargs has options of 'b', which is not in reward_funcs=\['a'\]; "),
        ({"reward_timeout": 0}, r"^reward_timeout must be a number above 0, not 0\.$"),
        ({"max_reward_failures": 2}, r"^max_reward_failures must be a number of at least 0 and of at most 1, not 2\.$"),
        ({"reward_kwargs": {"a": 1}}, r"^reward_kwargs must be a mapping or None, not \{'a': 1\}\.$"),
    ],
)
def test_what_contradicts_itself(said, sentence):
    with pytest.raises(ConfigError, match=sentence):
        RewardsConfig(**said)
