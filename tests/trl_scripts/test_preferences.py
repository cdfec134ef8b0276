"""TRL's scripts of DPO, KTO and reward models, with their import lines changed: three epochs of one step each."""

from math import log

import pytest

from tests.trl_scripts.running import run
from tests.trl_scripts.scripts import DPO, KTO, REWARD


@pytest.mark.parametrize("name", DPO)
def test_dpo(name, here):
    """The policy is its reference before the first step, and its learning rate is 1e-6: losses stay near that of the start.

    One sigmoid loss: log 2. MPO's three: 0.8 log 2, 0.2 × 2 log 2 of BCO's pair, and the answer's own mean log-prob, above 1 here.
    """
    last = run(DPO[name]).state.log_history[-1]
    start = log(2) if "Multi-loss" not in name else 0.8 * log(2) + 0.2 * 2 * log(2)
    assert abs(last["loss"] - start) < 0.05 if "Multi-loss" not in name else last["loss"] > start + 1
    assert 0 <= last["rewards/accuracies"] <= 1


@pytest.mark.parametrize("name", KTO)
def test_kto(name, here):
    """Where the policy is its reference every term is 1 - σ(0) = 1/2."""
    assert run(KTO[name]).state.log_history[-1]["loss"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", REWARD)
def test_reward(name, here):
    last = run(REWARD[name]).state.log_history[-1]
    assert 0 < last["loss"] < 2
    assert 0 <= last["accuracy"] <= 1
