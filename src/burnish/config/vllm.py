"""Where completions are sampled by a vLLM server, which one it is and how far its log-probs may be from the trainer's."""

from typing import Literal

from burnish.config.base import Config, config, option, options
from burnish.config.values import ConfigError


@config
class VLLMConfig(Config):
    """Sampling by a vLLM server, which is started beforehand and given the policy's weights after every step."""

    use_vllm: bool = option(False, "Sample with a vLLM server, not with the built-in sampler.")
    vllm_server_base_url: str | None = option(None, "Address of the server, such as http://127.0.0.1:8000; or give host and port.")
    vllm_server_host: str = option("127.0.0.1", "Host of the server.")
    vllm_server_port: int = option(8000, "Port of the server.", at_least=1, at_most=65535)
    vllm_server_timeout: float = option(240.0, "Seconds to wait for the server: to be there, to load weights, between two signs.", above=0)
    vllm_model: str | None = option(None, "Name of the model at the server; None: the only one that it serves.")
    vllm_weights_dir: str | None = option(
        None, "Folder for the policy's weights, which the server sees under the same path; None: in output_dir."
    )
    vllm_tolerance: float = option(0.05, "Largest mean difference, in nats, between the server's log-probs and the trainer's.", above=0)
    vllm_concurrency: int = option(64, "Prompts that are sampled from at a time.", at_least=1)
    vllm_untied_head: bool = option(False, "The server was started from a folder of tools/untied_head.py (vLLM on a CPU).")
    vllm_importance_sampling_correction: bool = option(
        True, "Weigh completions by the ratio of the trainer's probabilities to the server's."
    )
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = option(
        "sequence_mask", "Ratios of tokens or of whole completions; those out of bounds are cut off there, or count 0."
    )
    vllm_importance_sampling_clip_max: float | None = option(3.0, "Upper bound of the ratios; None: none.", above=0)
    vllm_importance_sampling_clip_min: float | None = option(None, "Lower bound of the ratios; None: none.", at_least=0)

    def __post_init__(self) -> None:
        mine = [name for name in options(VLLMConfig) if name.startswith("vllm_")]
        if not self.use_vllm and (said := self.changed(*mine)):
            raise ConfigError(f"{said[0]} has no effect without use_vllm=True; add that, or leave it out.")
        if self.vllm_server_base_url is not None and (said := self.changed("vllm_server_host", "vllm_server_port")):
            raise ConfigError(f"{said[0]} has no effect beside vllm_server_base_url={self.vllm_server_base_url!r}; give one of them.")
        correction = [name for name in mine if name.startswith("vllm_importance_sampling_")][1:]
        if not self.vllm_importance_sampling_correction and (said := self.changed(*correction)):
            raise ConfigError(f"{said[0]} has no effect with vllm_importance_sampling_correction=False; leave one of them out.")
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        if low is not None and high is not None and low > high:
            raise ConfigError(f"vllm_importance_sampling_clip_min={low!r} is above vllm_importance_sampling_clip_max={high!r}.")
        super().__post_init__()

    @property
    def vllm_url(self) -> str:
        return self.vllm_server_base_url or f"http://{self.vllm_server_host}:{self.vllm_server_port}"
