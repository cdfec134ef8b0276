"""Arguments of other libraries' trainers that have no counterpart here, each with what to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish.config.values import ConfigError

OPTION = "it is an option of the configuration"
INSTEAD = {
    "data_collator": "examples are laid out as token trees, which need no collator; leave it out",
    "tokenizer": "its name is processing_class",
    "quantization_config": "use model_config=ModelConfig(load_in_4bit=True, use_peft=True, ...)",
    "compute_loss_func": "choose loss_type, or write a method with a loss of its own (docs/methods.md)",
    "preprocess_logits_for_metrics": "logits are never kept; compute_metrics sees log-probs, entropies and hits of the trained tokens",
    "optimizer_cls_and_kwargs": "use optim and optim_args, or optimizers=(optimizer, schedule)",
    "model_init": "pass the model itself",
    **dict.fromkeys(
        ("dataset_text_field", "beta", "label_smoothing", "loss_type", "max_length", "precompute_ref_log_probs", "sync_ref_model"), OPTION
    ),
    "max_seq_length": "it is max_length, an option of the configuration",
    **dict.fromkeys(("max_prompt_length", "max_completion_length"), "max_length, an option of the configuration, bounds both together"),
    **dict.fromkeys(
        ("model_adapter_name", "ref_adapter_name"), "the reference is the adapter as it is at the start, or ref_model_name_or_path"
    ),
    **dict.fromkeys(("embedding_func", "embedding_tokenizer"), "answers are not weighed by the density of their prompts"),
    "rollout_func": "write an environment, and give environment_factory",
    "is_encoder_decoder": "models are decoders; leave it out",
    "packing": "examples never see each other and are never padded, so there is nothing to choose",
}


def refuse_arguments(given: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first argument that is not None."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"The trainer has no argument {name!r}: {INSTEAD.get(name, 'see help(Trainer) for those it has')}.")
