"""TRL's scripts of GRPO and RLOO that sample one turn, with their import lines changed."""

from math import log

import pytest

from tests.trl_scripts.conftest import TOKENS
from tests.trl_scripts.online import GRPO, RLOO
from tests.trl_scripts.running import run

TURNS = ("Tools", "Environments", "Providing an external dataset (optional)", "Rewards", "Multiple environments")
ONE_TURN = {**{name: text for name, text in GRPO.items() if name.partition(", ")[2] not in TURNS}, **RLOO}


@pytest.fixture(scope="module")
def model(taught):
    return taught


@pytest.mark.parametrize("name", ONE_TURN)
def test_one_turn(name, here):
    if "accuracy_reward" in ONE_TURN[name]:
        pytest.importorskip("math_verify")
    last = run(ONE_TURN[name]).state.log_history[-1]
    assert 0 < last["completions/mean_length"] <= TOKENS
    assert 0 <= last["frac_reward_zero_std"] <= 1
    if "Example 1" in name:  # a reward that is the length
        assert last["reward"] == pytest.approx(last["completions/mean_length"])
    if "Example 5" in name:
        assert last["reward"] == 1.0
    if "Example 6" in name:
        assert last["accuracy"] == last["reward"]
    if "Quick start" in name:
        assert last["reward"] > 0
    if "Entropy" in name:
        assert 0 < last["entropy"] < log(430)
