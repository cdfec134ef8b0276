"""Which model is trained, how it is loaded, and with which adapter."""

from typing import Any, Literal

from burnish.config.base import Config, config, option
from burnish.config.values import ConfigError

SAID_ELSEWHERE = {
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "revision": "model_revision",
    "trust_remote_code": "trust_remote_code",
    "quantization_config": "load_in_4bit or load_in_8bit",
}

MOVED = {"torch_dtype": "dtype", "dtype": "dtype", "revision": "model_revision", "attn_implementation": "attn_implementation"}
"""Arguments of `from_pretrained` that a trainer's configuration may hold in `model_init_kwargs` → the model's option."""


@config
class LoadConfig(Config):
    """How a model is loaded and computed with.

    `ModelConfig` and the trainers' configurations share these options: a trainer that is given a model's name has no other configuration.
    """

    compute_dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Precision of forward and backward passes (autocast); auto: what the hardware does well."
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with the model or tokenizer.")
    model_init_kwargs: dict[str, Any] | None = option(None, "Further arguments of AutoModelForCausalLM.from_pretrained.")


@config
class AdapterConfig(Config):
    """LoRA adapters, and quantised weights under them."""

    use_peft: bool = option(False, "Train a LoRA adapter instead of all weights.")
    adapter_name_or_path: str | None = option(None, "Continue training this adapter.")
    lora_r: int = option(16, "Rank of the adapter.", at_least=1)
    lora_alpha: int = option(32, "Scale of the adapter: its output is multiplied by lora_alpha / lora_r.", at_least=1)
    lora_dropout: float = option(0.05, "Dropout before the adapter.", at_least=0, below=1)
    lora_target_modules: str | list[str] | None = option(None, "Modules with an adapter: names, a pattern, or all-linear; None: by model.")
    lora_modules_to_save: list[str] | None = option(None, "Further modules that are trained whole and saved with the adapter.")
    use_rslora: bool = option(False, "Rank-stabilised LoRA: scale by lora_alpha / sqrt(lora_r).")
    use_dora: bool = option(False, "DoRA: train magnitude and direction separately.")
    load_in_4bit: bool = option(False, "Load the base model in 4 bits (QLoRA; needs bitsandbytes and a GPU).")
    load_in_8bit: bool = option(False, "Load the base model in 8 bits (needs bitsandbytes and a GPU).")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = option("nf4", "Data type of 4-bit weights.")
    use_bnb_nested_quant: bool = option(False, "Quantise the quantisation constants, too.")

    def __post_init__(self) -> None:
        adapted = self.use_peft or self.adapter_name_or_path is not None
        shape = self.changed(*SHAPE)
        if shape and self.adapter_name_or_path is not None:
            raise ConfigError(f"{shape[0]} has no effect with adapter_name_or_path, which brings its own; leave it out.")
        if shape and not adapted:
            raise ConfigError(f"{shape[0]} has no effect without use_peft=True; set it, or leave this out.")
        bits = self.changed("load_in_4bit", "load_in_8bit")
        if len(bits) == 2:
            raise ConfigError(f"{' and '.join(bits)} contradict each other; give one of them.")
        if bits and not adapted:
            raise ConfigError(f"{bits[0]} needs use_peft=True: quantised weights are not trained, only an adapter over them is.")
        details = self.changed("bnb_4bit_quant_type", "use_bnb_nested_quant")
        if details and not self.load_in_4bit:
            raise ConfigError(f"{details[0]} has no effect without load_in_4bit=True; set it, or leave this out.")
        super().__post_init__()


SHAPE = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora", "use_dora")


@config
class ModelConfig(AdapterConfig, LoadConfig):
    """Which model is trained."""

    model_name_or_path: str | None = option(None, "Local folder or hub id of the model.")
    model_revision: str = option("main", "Branch, tag or commit of the model on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "Type of the master weights, those that the optimizer changes; auto: float32."
    )
    attn_implementation: Literal["tree", "branches"] | None = option(
        None, "tree: one pass over all branches; branches: each alone; None: tree where the model passes its probe."
    )

    def __post_init__(self) -> None:
        for name in self.model_init_kwargs or {}:
            if name in SAID_ELSEWHERE:
                raise ConfigError(f"model_init_kwargs holds {name!r}, which has an option of its own; use {SAID_ELSEWHERE[name]}.")
        if self.dtype == "float16" and not (self.use_peft or self.adapter_name_or_path):
            raise ConfigError("dtype='float16' needs use_peft=True: weights of that type lose small updates; use 'float32' to train them.")
        if self.compute_dtype == "float32" and self.dtype in {"bfloat16", "float16"} and not (self.load_in_4bit or self.load_in_8bit):
            raise ConfigError(f"dtype={self.dtype!r} holds less than compute_dtype='float32' computes with; use dtype='float32'.")
        super().__post_init__()
