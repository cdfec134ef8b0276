"""Adapters, through PEFT."""

from __future__ import annotations

from typing import Any

from torch import nn

from burnish.config.model import ModelConfig
from burnish.models.load import SCORE_HEADS, TASKS, Kind, ModelError


def lora_config(config: ModelConfig, kind: Kind = "causal") -> Any | None:
    """The `peft.LoraConfig` that the flags describe, or None without `use_peft`."""
    if not config.use_peft or config.adapter_name_or_path:
        return None
    from peft import LoraConfig

    targets = config.lora_target_modules
    return LoraConfig(
        task_type=TASKS[kind],
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets[0] if targets and len(targets) == 1 and targets[0] == "all-linear" else targets,
        modules_to_save=config.lora_modules_to_save,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
    )


def add_adapter(model: Any, peft_config: Any, kind: Kind = "causal") -> Any:
    """The model with a fresh adapter; only the adapter trains, and of a reward model the head, which belongs to it.

    Raises ModelError for what cannot be trained here.
    """
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    if isinstance(model, PeftModel):
        raise ModelError("The model has an adapter already; pass peft_config=None to train that one, or merge it first.")
    if peft_config.is_prompt_learning:
        raise ModelError(f"{type(peft_config).__name__} learns prompts, which a token tree has no place for; use LoRA.")
    if kind != "causal":
        if peft_config.task_type not in (None, TASKS[kind]):
            raise ModelError(f"The adapter's task_type is {peft_config.task_type}, and this model is for {TASKS[kind]}; set that, or none.")
        peft_config.task_type = TASKS[kind]  # by which PEFT knows that the head is to be trained and saved
    if peft_config.target_modules is None and model.config.model_type not in KNOWN:
        peft_config.target_modules = "all-linear"
    if kind != "causal" and peft_config.target_modules == "all-linear":  # of which PEFT leaves out the head of one kind only
        peft_config.exclude_modules = peft_config.exclude_modules or list(SCORE_HEADS)
    if model.__dict__.get("is_loaded_in_4bit") or model.__dict__.get("is_loaded_in_8bit"):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        return get_peft_model(model, peft_config)
    except ValueError as error:
        raise ModelError(f"PEFT cannot add this adapter ({error}); change its options or its target_modules.") from error


def untrained_parameters(model: nn.Module) -> list[str]:
    """Names of trainable tensors that got no gradient, or one that is not finite. Call after a backward."""
    return [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not bool(p.grad.isfinite().all()))]
