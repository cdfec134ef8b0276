"""Options of the methods that sample: what is refused, in one sentence, and what is taken."""

from typing import get_args

import pytest

from burnish.config.grpo import USES, GRPOConfig, Loss
from burnish.config.rloo import RLOOConfig
from burnish.config.values import ConfigError

REFUSED = [
    ({"num_generations": 1}, "num_generations"),
    ({"num_iterations": 0}, "num_iterations"),
    ({"temperature": 0}, "temperature=0 gives the same completion each time, from which nothing is learnt; use one above 0."),
    ({"top_p": 0.0}, "top_p"),
    ({"dynamic_sampling_rounds": 2}, "dynamic_sampling_rounds has no effect without dynamic_sampling=True; set it, or leave this out."),
    ({"num_completions_to_print": 2}, "num_completions_to_print has no effect without log_completions=True; set it, or leave this out."),
    (
        {"max_tool_calling_iterations": 9, "max_completion_length": 8},
        "max_tool_calling_iterations=9 has no effect with max_completion_length=8, which a turn takes a token of at least; leave it out.",
    ),
    (
        {"ref_model_name_or_path": "x", "beta": 0.0},
        "ref_model_name_or_path='x' has no effect with beta=0, which compares with no reference; leave it out.",
    ),
    (
        {"sync_ref_model": True, "beta": 0.0},
        "sync_ref_model=True has no effect with beta=0, which compares with no reference; leave it out.",
    ),
    (
        {"reward_weights": [1.0, 2.0], "reward_funcs": ["exact"]},
        "reward_weights=[1.0, 2.0] must have one weight for each of reward_funcs=['exact'].",
    ),
    ({"reward_funcs": []}, "reward_funcs is an empty list; name at least one reward."),
    ({"vllm_model": "x"}, "vllm_model='x' has no effect without use_vllm=True; add that, or leave it out."),
]  # fmt: skip
OF_GRPO = [
    ({"kl_in_reward": True}, "kl_in_reward=True has no effect with beta=0, which compares with no reference; leave it out."),
    (
        {"use_bias_correction_kl": False},
        "use_bias_correction_kl=False has no effect with beta=0, which compares with no reference; leave it out.",
    ),
    (
        {"beta": 0.1, "kl_in_reward": True, "use_bias_correction_kl": False},
        "use_bias_correction_kl is for the divergence in the loss, and kl_in_reward=True has none; leave it out.",
    ),
    (
        {"beta": 0.1, "kl_in_reward": True, "multi_objective_aggregation": "normalize_then_sum"},
        "kl_in_reward=True needs one sum of rewards, which normalize_then_sum does not make; leave one out.",
    ),
    ({"entropy_target": 0.3}, "entropy_target=0.3 has no effect without use_adaptive_entropy=True; set it, or leave this out."),
    (
        {"use_adaptive_entropy": True, "entropy_coef_min": 0.5, "entropy_coef_max": 0.1},
        "entropy_coef_min=0.5 is above entropy_coef_max=0.1; swap them.",
    ),
    ({"loss_type": "rloo"}, "loss_type"),
    ({"delta": 1.0}, "delta"),
]
OF_RLOO = [
    ({"reward_clip_range": [1.0]}, "reward_clip_range=[1.0] must be two numbers, the smaller one first."),
    ({"reward_clip_range": [1.0, -1.0]}, "reward_clip_range=[1.0, -1.0] must be two numbers, the smaller one first."),
    ({"loss_type": "dapo"}, "RLOOConfig has no option 'loss_type'"),
]
BOTH = [(config, *one) for config in (GRPOConfig, RLOOConfig) for one in REFUSED]


@pytest.mark.parametrize(
    ("config", "options", "said"), [*BOTH, *((GRPOConfig, *one) for one in OF_GRPO), *((RLOOConfig, *one) for one in OF_RLOO)]
)
def test_refused(config, options, said):
    with pytest.raises(ConfigError) as caught:
        config(**options)
    text = str(caught.value)
    assert text == said if said.endswith(".") else said in text
    assert "\n" not in text


VALUES = {"importance_sampling_level": "sequence", "delta": 4.0}


@pytest.mark.parametrize("option", USES)
def test_an_option_that_a_loss_does_not_take_is_refused(option):
    """By every loss that has no use for it; and taken by every other, and by none at its default."""
    value = VALUES.get(option, 1.5)
    for loss in get_args(Loss):
        if loss in USES[option]:
            assert GRPOConfig(loss_type=loss, **{option: value}).loss_type == loss
            continue
        with pytest.raises(ConfigError) as caught:
            GRPOConfig(loss_type=loss, **{option: value})
        use = " or ".join(USES[option])
        assert str(caught.value) == f"{option}={value!r} has no effect on loss_type={loss!r}; leave it out, or use {use}."


def test_the_uses_of_options_are_those_of_the_losses():
    """What `USES` says is what the functions take as keywords: a loss with a new option is found out here."""
    from burnish.methods.grpo import LOSSES
    from burnish.ops.pairs import options_of

    for loss, function in LOSSES.items():
        assert {name for name, losses in USES.items() if loss in losses} == set(options_of(function)), loss


def test_defaults():
    """TRL's where it has them."""
    grpo, rloo = GRPOConfig(), RLOOConfig()
    assert (grpo.num_generations, grpo.beta, grpo.loss_type, grpo.scale_rewards, grpo.num_iterations) == (8, 0.0, "dapo", "group", 1)
    assert (rloo.num_generations, rloo.beta, rloo.epsilon, rloo.normalize_advantages) == (2, 0.05, 0.2, False)
    assert (grpo.learning_rate, rloo.learning_rate, grpo.temperature) == (1e-6, 1e-6, 1.0)
    assert not grpo.held
    assert rloo.held


def test_the_best_model_is_the_one_of_most_reward():
    args = GRPOConfig(load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps")
    assert args.metric_for_best_model == "reward"
    assert args.greater_is_better
