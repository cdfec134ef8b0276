"""Whose run is this? A fingerprint of the starting model, and the environment it runs in."""

from __future__ import annotations

from typing import Any

from torch import nn


def model_identity(model: nn.Module) -> str:
    """One line that is the same for the same architecture, configuration and weights; call before the first step.

    E.g. ``LlamaForCausalLM config 3f2a91c04b7d weights 9e0c55d1a2f4``. Weights are hashed by name, shape, dtype and a
    few slices, so it takes milliseconds; with PEFT the base and the adapters both count.
    """
    raise NotImplementedError


def environment() -> dict[str, Any]:
    """What a run depends on outside its configuration: versions, git commit, hardware. JSON-serialisable.

    Keys: python, platform, packages (name → version or null), git (commit, dirty; null outside a repository),
    cpu (model, cores, threads), memory_bytes, gpus (name, memory_bytes).
    """
    raise NotImplementedError
