"""The vocabulary head of a causal model, taken apart so that it can be computed in chunks (`ops.logprobs`).

What transformers' models do after their last hidden state is a projection, at times with a bias, a scale (Cohere
multiplies, Granite divides) or a soft cap (Gemma). A LoRA adapter on the head adds a second, low-rank factor. Whether a
model does anything else is not guessed but found by the probe (`models/probe.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from burnish.ops.logprobs import Head


class HeadError(ValueError):
    """The head has a part that the chunked projection does not do."""


def head_of(model: Any, hidden: Tensor, *, temperature: float = 1.0) -> Head:
    """The head of the causal model `model`, applied to `hidden` `[N, H]`.

    Raises HeadError when the head is neither a linear layer nor one with plain LoRA adapters.
    """
    module = model.get_output_embeddings()
    if module is None:
        raise HeadError(f"{type(model).__name__} has no output embeddings; use a causal language model.")
    inputs, weights, bias = _factors(module, hidden)
    config = model.config.get_text_config()
    scale = float(config.__dict__.get("logit_scale") or 1.0) / float(config.__dict__.get("logits_scaling") or 1.0)
    softcap = config.__dict__.get("final_logit_softcapping")
    return Head(inputs=inputs, weights=weights, bias=bias, scale=scale, softcap=softcap, temperature=temperature)


def _factors(module: nn.Module, hidden: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    from peft.tuners.lora import Linear as LoraLinear
    from peft.utils.other import ModulesToSaveWrapper

    if isinstance(module, ModulesToSaveWrapper):
        active = module.original_module if module.disable_adapters else module.modules_to_save[str(module.active_adapter)]
        return _factors(active, hidden)
    if isinstance(module, LoraLinear):
        return _lora_factors(module, hidden)
    if isinstance(module, nn.Linear):
        return [_like(hidden, module.weight)], [module.weight], module.bias
    raise HeadError(f"The output head is a {type(module).__name__}, and the chunked head knows linear layers and LoRA on them.")


def _lora_factors(module: Any, hidden: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    inputs, weights, bias = _factors(module.base_layer, hidden)
    if module.disable_adapters or module.merged:
        return inputs, weights, bias
    for name in module.active_adapters:
        if name not in module.lora_A:
            continue
        if name in module.lora_variant:
            kind = type(module.lora_variant[name]).__name__
            raise HeadError(f"The adapter on the output head is a {kind}; use plain LoRA there, or leave the head out of target_modules.")
        a, b = module.lora_A[name], module.lora_B[name]
        x = module.lora_dropout[name](hidden.to(a.weight.dtype))
        inputs.append(a(x) * module.scaling[name])
        weights.append(b.weight)
        if b.bias is not None:
            raise HeadError("The adapter on the output head has a bias of its own; set lora_bias=False.")
    return inputs, weights, bias


def _like(hidden: Tensor, weight: Tensor) -> Tensor:
    """Hidden states in the dtype that the projection computes in: autocast's where it is on, else the weight's."""
    device = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype)
