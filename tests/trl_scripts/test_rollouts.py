"""TRL's scripts of GRPO that sample one turn, with their import lines changed."""

from math import log

import pytest

from tests.trl_scripts.conftest import TOKENS
from tests.trl_scripts.online import GRPO
from tests.trl_scripts.running import run

TURNS = ("Tools", "Environments", "Providing an external dataset (optional)", "Rewards", "Multiple environments")
ONE_TURN = {name: text for name, text in GRPO.items() if name.partition(", ")[2] not in TURNS}


@pytest.fixture(scope="module")
def model(taught):
    return taught


def check_one_turn(name: str, script: str) -> None:
    if "accuracy_reward" in script:
        pytest.importorskip("math_verify")
    last = run(script).state.log_history[-1]
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


@pytest.mark.parametrize("name", ONE_TURN)
def test_one_turn(name, here):
    check_one_turn(name, ONE_TURN[name])
