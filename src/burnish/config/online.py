"""What every method shares that learns from completions of its own."""

from burnish.config.base import config, option
from burnish.config.reference import ReferenceConfig
from burnish.config.rewards import RewardsConfig
from burnish.config.rollouts import RolloutConfig
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError
from burnish.config.vllm import VLLMConfig


@config
class OnlineConfig(ReferenceConfig, VLLMConfig, RewardsConfig, RolloutConfig, TrainConfig):
    """Rollouts, their rewards, and a reference."""

    beta: float = option(0.0, "Weight of the KL divergence from the reference; 0: no reference.", at_least=0)

    @property
    def held(self) -> bool:
        return self.beta > 0

    def __post_init__(self) -> None:
        if not self.beta and (unheard := self.changed("ref_model_name_or_path", "sync_ref_model")):
            raise ConfigError(f"{unheard[0]} has no effect with beta=0, which compares with no reference; leave it out.")
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            object.__setattr__(self, "metric_for_best_model", "reward")
        super().__post_init__()
