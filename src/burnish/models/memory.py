"""How much memory a run takes, from the configuration alone; and from that, how many tokens fit a micro-batch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from burnish.ops.logprobs import CHUNK_ELEMENTS

LARGEST = {"cpu": 512, "cuda": 16384}
"""Tokens above which a micro-batch is not faster on that device, only larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations_per_token: int
    head: int

    def total(self, tokens: int) -> int:
        return self.weights + self.gradients + self.optimizer + self.head + tokens * self.activations_per_token

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer, "head": self.head}
        return ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in parts.items())


def estimate_memory(
    model: Any, *, optimizer: str, compute_bytes: int, gradient_checkpointing: bool, device: str | None = None
) -> MemoryEstimate:
    """For a causal model that is loaded (or on the meta device). Activations are those that autograd keeps for a backward."""
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    states = {"adamw": 2, "muon": 1, "sgd": 0, "adafactor": 0}[optimizer]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    config = model.config.get_text_config()
    device = device or parameters[0].device.type
    return MemoryEstimate(
        weights=sum(p.numel() * p.element_size() for p in parameters),
        gradients=gradients,
        optimizer=states * gradients,
        activations_per_token=_activations(config.to_dict(), compute_bytes, gradient_checkpointing),
        # two chunks of logits in float32, and the gradient of the projection
        head=3 * 4 * CHUNK_ELEMENTS.get(device, 2**26) + (4 * config.vocab_size * config.hidden_size if trained else 0),
    )


def _activations(config: dict[str, Any], size: int, checkpointing: bool) -> int:
    """Per token and layer: both norms with their float32 copies, queries, keys and values before and after rotation, the
    attention's output, the residual stream, and the four intermediates of a gated feed-forward."""
    hidden = config.get("hidden_size") or config["n_embd"]
    layers = config.get("num_hidden_layers") or config["n_layer"]
    inner = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
    if experts := config.get("num_experts_per_tok"):
        inner = experts * (config.get("moe_intermediate_size") or inner)
    layer = (12 * hidden + 4 * inner) * size
    return layers * hidden * size + layer if checkpointing else layers * layer


def device_memory(device: torch.device) -> int:
    """All the memory of the device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def microbatch_tokens(estimate: MemoryEstimate, device: torch.device) -> int:
    """The power of two that fills at most 60% of the device, between 256 and `LARGEST`.

    It looks at all the memory, not at what is free now, so that the same machine always cuts a step in the same way and a
    resumed run is the same run to the bit.
    """
    room = 0.6 * device_memory(device) - estimate.total(0)
    fits = max(256, int(room / max(1, estimate.activations_per_token)))
    return min(2 ** (fits.bit_length() - 1), LARGEST.get(device.type, 4096))
