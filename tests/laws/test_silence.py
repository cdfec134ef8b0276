"""Law *silence*: where rewards do not differ there is nothing to learn, and nothing happens: not a bit of a weight."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from burnish.config.grpo import GRPOConfig
from burnish.config.rloo import RLOOConfig
from burnish.config.values import ConfigError
from burnish.methods import grpo, rloo
from burnish.models.policy import TreeModel
from burnish.rewards.samples import Failure
from burnish.types import Branch
from tests.laws.continued import lines, samples, weights
from tests.laws.methods import CASES, build_trainer, cases
from tests.laws.rollout_cases import SAMPLING, GRPOTrainer, RLOOTrainer
from tests.laws.runs import make_run, same_model, take, whole_step
from tests.rollout.made import group

CASE = next(case for case in CASES if case.name == "grpo-grpo")
JUDGES = {"grpo": grpo.judge, "rloo": rloo.judge}


@cases("silence")
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, -1e30, 1e-30])
def test_equal_rewards_have_an_advantage_of_exactly_0(case, reward):
    """The mean of three times 0.1 is not quite 0.1 in floats, and divided by 1e-4 that would show."""
    args = case.config()
    other = group(0.0, 1.0, 0.5)
    for size in (2, 3, 7):
        judged = JUDGES[case.module]([group(*[reward] * size), other], [1.0], None, args)
        assert judged.advantages[0] == (0.0,) * size
        assert judged.signal == (False, True)
        assert np.isfinite(judged.advantages[1]).all()
        assert any(judged.advantages[1])


@cases("silence")
@pytest.mark.parametrize("rewards", [(1.0, Failure("raised KeyError"), Failure("raised KeyError")), (None, None, 0.5), (None, None, None)])
def test_a_reward_alone_has_nothing_to_be_compared_with(case, rewards):
    """What has no reward has no advantage either, and the others' is what it would be without it."""
    judge, args = JUDGES[case.module], case.config()
    judged = judge([group(*rewards), group(0.0, None, 1.0)], [1.0], None, args)
    assert judged.advantages[0] == (0.0, 0.0, 0.0)
    assert judged.signal == (False, True)
    assert judged.advantages[1][1] == 0.0
    assert judge([group(0.0, 1.0)], [1.0], None, replace(args, num_generations=2)).advantages[0] == judged.advantages[1][::2]


@cases("silence")
def test_a_group_of_one_is_an_error(case):
    with pytest.raises(ConfigError, match="num_generations"):
        case.config(num_generations=1)


@cases("silence")
@pytest.mark.parametrize("left_out", [True, False], ids=["left out", "computed"])
def test_without_an_advantage_the_gradient_is_exactly_0(case, left_out, float64):
    """Computed all the same, as where a reference is compared with, it is 0 as well: the policy is that reference."""

    def silent(branch):
        count = branch.left_out + sum(map(len, branch.segments))
        return Branch(segments=(), advantage=0.0, left_out=count) if left_out else replace(branch, advantage=0.0)

    examples = [replace(one, branches=tuple(map(silent, one.branches))) for one in case.examples(6) if not one.branches[0].left_out]
    outcome = take(make_run(case, reference=same_model), whole_step(examples, max_tokens=60))
    assert all(not gradient.any() for gradient in outcome.gradient.values())
    assert outcome.metrics["loss total"] == outcome.metrics["grad_norm total"] == 0.0
    assert all(np.isfinite(value) for value in outcome.metrics.values())
    assert outcome.metrics["entropy count"] == (0 if left_out else sum(one.trained_tokens for one in examples))


RUNS = {
    "grpo": (GRPOTrainer, GRPOConfig, {}),
    "grpo with a reference": (GRPOTrainer, GRPOConfig, {"beta": 0.1}),
    "rloo": (RLOOTrainer, RLOOConfig, {"beta": 0.0}),
    "rloo with a reference": (RLOOTrainer, RLOOConfig, {"beta": 0.1}),
    "grpo with a reference in the reward": (GRPOTrainer, GRPOConfig, {"beta": 0.1, "kl_in_reward": True}),
}


def tied(completions, **others):
    return [0.7 for _ in completions]


@pytest.mark.parametrize("run", RUNS)
def test_a_run_in_which_every_group_is_tied_leaves_the_weights_where_they_are(run, tmp_path, monkeypatch):
    """Of plain gradient descent, without momentum.

    No completion costs a forward with a gradient: each step has one token, because a model cannot be run on none. Where there is a
    reference the policy of every step is still the same as it, and the divergence is exactly 0: rounding is no reason to learn.
    """
    trainer, config, options = RUNS[run]
    case = replace(CASE, config=lambda **more: config(**SAMPLING, **options, **more), trainer=partial(trainer, reward_funcs=tied))
    model, computed, forward = case.model(dtype=torch.float32), [], TreeModel.forward
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    made = build_trainer(case, model, tmp_path, max_steps=3, optim="sgd", learning_rate=10.0, save_strategy="no", logging_steps=1)
    monkeypatch.setattr(
        TreeModel, "forward", lambda self, tree: (computed.append(tree.T * torch.is_grad_enabled()), forward(self, tree))[1]
    )
    made.train()
    assert all(torch.equal(value, before[name]) for name, value in weights(made).items())
    logged = lines(tmp_path)
    assert [(line["grad_norm"], line["frac_reward_zero_std"]) for line in logged] == [(0.0, 1.0)] * 3
    assert {line["advantage"] for line in samples(tmp_path)} == {0.0}
    if options.get("beta"):
        assert [line["kl"] for line in logged] == [0.0] * 3
    if run == "grpo with a reference":  # which is in the loss, and every completion is compared with it
        assert sum(computed) > 100
    else:
        assert [tokens for tokens in computed if tokens] == [1, 1, 1]
