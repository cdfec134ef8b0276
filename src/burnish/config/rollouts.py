"""How many completions are sampled, when, and what becomes of them."""

from typing import Any

from burnish.config.base import config, option
from burnish.config.prompts import PromptsConfig
from burnish.config.sampling import SamplingConfig
from burnish.config.values import ConfigError


@config
class RolloutConfig(SamplingConfig, PromptsConfig):
    """Rollouts: a step takes `batch_size` prompts and `num_generations` completions of each."""

    num_generations: int = option(8, "Completions of each prompt: a group.", at_least=2)
    num_iterations: int = option(1, "How often each rollout is learnt from.", at_least=1)
    steps_per_generation: int = option(1, "Steps whose prompts are sampled at once, before the first of them.", at_least=1)
    mask_truncated_completions: bool = option(False, "Learn nothing from completions that max_completion_length cut off.")
    dynamic_sampling: bool = option(False, "Replace groups without signal by those of further prompts (DAPO).")
    dynamic_sampling_rounds: int = option(3, "With dynamic_sampling: most times that further prompts are drawn for a step.", at_least=1)
    max_tool_calling_iterations: int | None = option(None, "Most turns with tool calls; None: as max_completion_length allows.", at_least=1)
    num_generations_eval: int | None = option(None, "Completions of each prompt in evaluation; None: num_generations.", at_least=1)
    eval_sampling: dict[str, Any] | None = option(
        None, "Sampling options of evaluation, such as {temperature: 0}; or of named sets, {name: {temperature: 0}}."
    )
    success_reward: float = option(1.0, "In evaluation, a completion with this reward or more is a success.")
    log_completions: bool = option(False, "Print samples with every log line; all of them are in output_dir in any case.")
    num_completions_to_print: int | None = option(None, "With log_completions: how many; None: a group.", at_least=1)

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise ConfigError("temperature=0 gives the same completion each time, from which nothing is learnt; use one above 0.")
        if self.changed("dynamic_sampling_rounds") and not self.dynamic_sampling:
            raise ConfigError("dynamic_sampling_rounds has no effect without dynamic_sampling=True; set it, or leave this out.")
        if self.num_completions_to_print is not None and not self.log_completions:
            raise ConfigError("num_completions_to_print has no effect without log_completions=True; set it, or leave this out.")
        if self.max_tool_calling_iterations is not None and self.max_tool_calling_iterations > self.max_completion_length:
            raise ConfigError(
                f"max_tool_calling_iterations={self.max_tool_calling_iterations} has no effect with max_completion_length="
                f"{self.max_completion_length}, which a turn takes a token of at least; leave it out."
            )
        super().__post_init__()
