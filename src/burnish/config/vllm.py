from typing import Literal

from burnish.config.base import Config, config, option


@config
class VLLMConfig(Config):
    """vLLM."""

    use_vllm: bool = option(False, "x")
    vllm_importance_sampling_correction: bool = option(True, "x")
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = option(
        "sequence_mask", "x"
    )
    vllm_importance_sampling_clip_max: float | None = option(3.0, "x")
    vllm_importance_sampling_clip_min: float | None = option(None, "x")
