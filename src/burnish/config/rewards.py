"""What completions are worth: which rewards, with which weights, and what they may cost."""

from typing import Any

from burnish.config.base import Config, config, option
from burnish.config.values import ConfigError


@config
class RewardsConfig(Config):
    """What completions are worth. Functions of Python are given to the trainer itself."""

    reward_funcs: list[str] | None = option(
        None, "Names of rewards (accuracy, exact, numeric, code, …), module:function, file.py:function, reasoning_gym:task, or models."
    )
    reward_kwargs: dict[str, dict[str, Any]] | None = option(
        None, "Options of rewards: a mapping of a name in reward_funcs to its options."
    )
    reward_weights: list[float] | None = option(None, "Weight of each reward; None: 1 each.")
    reward_timeout: float = option(60.0, "Seconds that a call of a reward function may take, from when it begins.", above=0)
    reward_memory: int | None = option(4096, "MiB of memory that each process of the reward functions may use; None: any.", at_least=1)
    reward_workers: int | None = option(None, "Processes that reward functions run in; None: one for each core, at most 8.", at_least=1)
    max_reward_failures: float = option(
        0.2, "Share of completions that may lack a reward because a function failed, before the run ends.", at_least=0, at_most=1
    )

    def __post_init__(self) -> None:
        named, weights = self.reward_funcs, self.reward_weights
        if named is not None and not named:
            raise ConfigError("reward_funcs is an empty list; name at least one reward.")
        if named is not None and weights is not None and len(named) != len(weights):
            raise ConfigError(f"reward_weights={weights!r} must have one weight for each of reward_funcs={named!r}.")
        strange = [name for name in self.reward_kwargs or {} if name not in (named or ())]
        if strange and named is not None:
            raise ConfigError(f"reward_kwargs has options of {strange[0]!r}, which is not in reward_funcs={named!r}; leave them out.")
        super().__post_init__()
