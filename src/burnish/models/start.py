"""From what the user named to a policy ready to train, with what was decided on the way in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from burnish.config.model import ModelConfig
from burnish.config.train import TrainConfig
from burnish.models.load import ModelError, choose_compute_dtype, disable_dropout, load_model
from burnish.models.lora import add_adapter, lora_config
from burnish.models.policy import Policy
from burnish.models.probe import probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    policy: Policy
    messages: tuple[str, ...]
    """Sentences for the user: dtypes and why, what is trained, what the probe found."""
    aux_loss_coef: float
    """Weight of a mixture-of-experts model's balancing loss; 0 where there is none."""


def start_policy(
    model: Any, config: ModelConfig, args: TrainConfig, peft_config: Any | None, tokenizer: Any, device: torch.device
) -> Started:
    """Loads (or takes) the model, adds the adapter, sets dropout and checkpointing, and probes it. Raises ModelError."""
    name = str(config.model_name_or_path)
    loaded = load_model(config, device) if isinstance(model, str | Path) else model.to(device)
    rows = loaded.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"The tokenizer has {len(tokenizer):,} tokens and the embedding of {name or 'the model'} {rows:,}; "
            "give the model's own tokenizer, or a model after resize_token_embeddings."
        )
    peft_config = peft_config or lora_config(config)
    if peft_config is not None:
        loaded = add_adapter(loaded, peft_config)
    if args.disable_dropout:
        disable_dropout(loaded)
    coefficient = _aux_loss_coef(loaded.config.get_text_config().to_dict(), args, name)
    compute, why = choose_compute_dtype(args.compute_dtype, device)
    policy = Policy(loaded, compute_dtype=compute, aux_loss=coefficient > 0)
    found = probe(policy, wanted=config.attn_implementation)
    if args.gradient_checkpointing:
        policy.causal_model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = sum(p.numel() for p in loaded.parameters() if p.requires_grad)
    total = sum(p.numel() for p in loaded.parameters())
    weights = str(next(loaded.parameters()).dtype).removeprefix("torch.")
    messages = (
        f"{type(policy.causal_model).__name__}: {total:,} parameters, {trained:,} trained ({trained / total:.1%}); "
        f"weights {weights}, compute {str(compute).removeprefix('torch.')} ({why}), on {device}.",
        *found.messages,
    )
    return Started(policy=policy, messages=messages, aux_loss_coef=coefficient)


def _aux_loss_coef(config: dict[str, Any], args: TrainConfig, name: str) -> float:
    asked = args.router_aux_loss_coef
    if asked and "router_aux_loss_coef" not in config:
        raise ModelError(f"router_aux_loss_coef is {asked}, and {name} is not a mixture of experts with a balancing loss; leave it out.")
    if asked is None:
        return float(config.get("router_aux_loss_coef") or 0.0) if config.get("output_router_logits") else 0.0
    return asked
