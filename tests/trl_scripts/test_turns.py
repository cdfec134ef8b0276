"""TRL's scripts of GRPO with tools and environments, with their import lines changed."""

import pytest

from tests.trl_scripts.online import GRPO
from tests.trl_scripts.running import run
from tests.trl_scripts.test_rollouts import TURNS

STEPS = {"Environments": 2, "Rewards": 2}
"""Of `max_steps`; the others are three epochs."""


@pytest.fixture(scope="module")
def model(taught):
    return taught


@pytest.mark.parametrize("name", TURNS)
def test_turns(name, here):
    if name == "Tools":
        pytest.importorskip("math_verify")
    trainer = run(GRPO[f"grpo_trainer, {name}"])
    last = trainer.state.log_history[-1]
    assert trainer.state.global_step == STEPS.get(name, 3)
    assert last["turns"] >= 1
    assert "tools/call_frequency" in last
    own = name in ("Environments", "Providing an external dataset (optional)", "Rewards")
    assert ("rewards/IncrementEnv/mean" in last) == own
