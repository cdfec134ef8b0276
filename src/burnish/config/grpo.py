"""Group-relative policy optimisation: sampled completions, measured against those of the same prompt."""

from typing import Literal

from burnish.config.base import Config, config, option, options
from burnish.config.online import OnlineConfig
from burnish.config.values import ConfigError
from burnish.config.vllm import VLLMConfig

CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "gspo")
"""Losses with a range that the ratio is clipped to on both sides."""
USES = {
    "epsilon": (*CLIPPED, "gmpo"),
    "epsilon_high": (*CLIPPED, "cispo", "gmpo"),
    "delta": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "gspo"),
    "importance_sampling_level": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo"),
    "sapo_temperature_neg": ("sapo",),
    "sapo_temperature_pos": ("sapo",),
    "vespo_k_pos": ("vespo",),
    "vespo_lambda_pos": ("vespo",),
    "vespo_k_neg": ("vespo",),
    "vespo_lambda_neg": ("vespo",),
}
"""Option → the losses that take it."""
Loss = Literal["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo", "gspo", "gmpo"]


@config
class SurrogateConfig(Config):
    """What is made of a ratio and an advantage."""

    loss_type: Loss = option("dapo", "Which loss; they differ in how ratios are bounded, and in what is averaged over.")
    epsilon: float | None = option(None, "How far below 1 a ratio counts; None: as in the paper, 0.2 (gspo 3e-4, gmpo 0.4).", above=0)
    epsilon_high: float | None = option(None, "How far above 1; cispo: the largest ratio. None: as epsilon (gspo 4e-4, cispo 5).", above=0)
    delta: float | None = option(None, "Bound of the ratio where the advantage is negative (two-sided clipping).", above=1)
    importance_sampling_level: Literal["token", "sequence", "sequence_token"] | None = option(
        None, "Ratios of tokens, or of whole completions (GSPO). None: of tokens (luspo: of completions)."
    )
    sapo_temperature_neg: float = option(1.05, "With sapo: temperature of tokens with a negative advantage.", above=0)
    sapo_temperature_pos: float = option(1.0, "With sapo: temperature of the others.", above=0)
    vespo_k_pos: float = option(2.0, "With vespo: power of the weight, of positive advantages.", at_least=0)
    vespo_lambda_pos: float = option(3.0, "With vespo: decay of the weight, of positive advantages.", at_least=0)
    vespo_k_neg: float = option(3.0, "With vespo: power of the weight, of negative advantages.", at_least=0)
    vespo_lambda_neg: float = option(2.0, "With vespo: decay of the weight, of negative advantages.", at_least=0)
    off_policy_mask_threshold: float | None = option(None, "Leave out completions of negative advantage this far from the policy.", above=0)

    def __post_init__(self) -> None:
        for name, losses in USES.items():
            if (said := self.changed(name)) and self.loss_type not in losses:
                raise ConfigError(f"{said[0]} has no effect on loss_type={self.loss_type!r}; leave it out, or use {' or '.join(losses)}.")
        super().__post_init__()


@config
class EntropyConfig(Config):
    """What keeps the policy from settling too soon."""

    top_entropy_quantile: float = option(1.0, "Learn only from this share of the tokens, those of most entropy.", above=0, at_most=1)
    entropy_coef: float = option(0.0, "Weight of an entropy bonus.", at_least=0)
    use_adaptive_entropy: bool = option(False, "Let entropy_coef follow the entropy towards entropy_target.")
    entropy_coef_min: float = option(0.0, "With use_adaptive_entropy: least weight.", at_least=0)
    entropy_coef_max: float = option(1.0, "With use_adaptive_entropy: largest weight.", at_least=0)
    entropy_coef_delta: float = option(0.005, "With use_adaptive_entropy: change of the weight in a step.", above=0)
    entropy_target: float = option(0.2, "With use_adaptive_entropy: entropy of a token, in nats, below which the weight grows.", at_least=0)

    def __post_init__(self) -> None:
        adaptive = self.changed("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target")
        if adaptive and not self.use_adaptive_entropy:
            raise ConfigError(f"{adaptive[0]} has no effect without use_adaptive_entropy=True; set it, or leave this out.")
        if self.entropy_coef_min > self.entropy_coef_max:
            raise ConfigError(f"entropy_coef_min={self.entropy_coef_min} is above entropy_coef_max={self.entropy_coef_max}; swap them.")
        super().__post_init__()


@config
class GRPOConfig(SurrogateConfig, EntropyConfig, OnlineConfig):
    """Group-relative policy optimisation: how rollouts are learnt from."""

    learning_rate: float = option(1e-6, "Peak learning rate.", above=0)
    output_dir: str = option("runs/grpo", "Folder of the run: checkpoints, metrics, samples, the final model.")
    beta: float = option(0.0, "Weight of the KL divergence from the reference; 0: no reference.", at_least=0)
    kl_in_reward: bool = option(False, "Take the divergence off the rewards, instead of adding it to the loss.")
    use_bias_correction_kl: bool = option(True, "Weigh the divergence in the loss by the ratio, so that it is the current policy's.")
    scale_rewards: Literal["group", "batch", "none"] = option(
        "group", "Divide advantages by the deviation of the rewards: of a group's, of a step's, or not."
    )
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = option(
        "sum_then_normalize", "normalize_then_sum: make advantages of each reward, then add them up (GDPO)."
    )

    def __post_init__(self) -> None:
        if not self.beta and (unheard := self.changed("kl_in_reward", "use_bias_correction_kl")):
            raise ConfigError(f"{unheard[0]} has no effect with beta=0, which compares with no reference; leave it out.")
        correction = [name for name in options(VLLMConfig) if name.startswith("vllm_importance_sampling_")]
        if self.loss_type == "gmpo" and (said := self.changed(*correction)):
            raise ConfigError(f"{said[0]} has no effect on loss_type='gmpo', whose ratio is of the whole completion; leave it out.")
        if self.kl_in_reward and self.multi_objective_aggregation == "normalize_then_sum":
            raise ConfigError("kl_in_reward=True needs one sum of rewards, which normalize_then_sum does not make; leave one out.")
        if self.kl_in_reward and self.changed("use_bias_correction_kl"):
            raise ConfigError("use_bias_correction_kl is for the divergence in the loss, and kl_in_reward=True has none; leave it out.")
        super().__post_init__()
