"""REINFORCE leave-one-out: sampled completions, measured against the others of the same prompt."""

from burnish.config.base import config, option, options
from burnish.config.online import OnlineConfig
from burnish.config.values import ConfigError
from burnish.config.vllm import VLLMConfig


@config
class RLOOConfig(OnlineConfig):
    """REINFORCE leave-one-out: how rollouts are learnt from."""

    learning_rate: float = option(1e-6, "Peak learning rate.", above=0)
    output_dir: str = option("runs/rloo", "Folder of the run: checkpoints, metrics, samples, the final model.")
    num_generations: int = option(2, "Completions of each prompt: a group.", at_least=2)
    beta: float = option(0.05, "Weight of the KL divergence from the reference, taken off the rewards; 0: no reference.", at_least=0)
    epsilon: float = option(0.2, "How far below 1 a completion's ratio counts.", above=0)
    epsilon_high: float | None = option(None, "How far above 1 it counts; None: as epsilon.", above=0)
    normalize_advantages: bool = option(False, "Bring the advantages of a step to mean 0 and deviation 1.")
    reward_clip_range: list[float] | None = option(None, "Least and largest reward; others are brought there.")

    def __post_init__(self) -> None:
        correction = [name for name in options(VLLMConfig) if name.startswith("vllm_importance_sampling_")]
        if said := self.changed(*correction):
            raise ConfigError(f"{said[0]} has no effect on RLOO, whose ratio is of whole completions already; leave it out, or use GRPO.")
        clip = self.reward_clip_range
        if clip is not None and (len(clip) != 2 or clip[0] >= clip[1]):
            raise ConfigError(f"reward_clip_range={clip!r} must be two numbers, the smaller one first.")
        super().__post_init__()
