"""Whose run is this? A fingerprint of the starting model, and the environment it runs in."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from burnish.checkpoint.weights import adapter_names

PACKAGES = ("burnish", "torch", "transformers", "datasets", "peft", "tokenizers", "safetensors", "numpy")
SAMPLES = 256
"""Elements of each tensor that enter the fingerprint, spread evenly from the first on."""

# Saving, loading and training settings write these; none of them changes what the model computes.
NOT_ARCHITECTURE = ("architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "_name_or_path")


def model_identity(model: nn.Module) -> str:
    """One line that is the same for the same architecture, configuration and weights; call before the first step.

    E.g. ``LlamaForCausalLM config 3f2a91c04b7d weights 9e0c55d1a2f4``. Weights are hashed by name, shape, dtype and
    256 evenly spread elements of each, so it takes milliseconds: it tells models apart, and does not verify files. With
    PEFT the base and the adapters both count.
    """
    names = adapter_names(model)
    base = model.get_base_model() if names else model  # type: ignore[operator]
    config = _config(base)
    if names:
        config["peft"] = {name: _config(model, adapter=name) for name in names}
    return f"{type(base).__name__} config {_hash(_canonical(config))} weights {_hash(_weights(model))}"


def environment() -> dict[str, Any]:
    """What a run depends on outside its configuration: versions, git commit, hardware. JSON-serialisable.

    Keys: python, platform, packages (name → version or null), git (commit, dirty; null outside a repository),
    cpu (model, cores, threads), memory_bytes, gpus (name, memory_bytes).
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [
            {"name": gpu.name, "memory_bytes": gpu.total_memory}
            for gpu in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ],
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=_plain).encode()


def _plain(value: object) -> Any:
    """PEFT's configurations hold sets and enumerations."""
    return sorted(value) if isinstance(value, set) else str(value)


def _config(model: Any, adapter: str | None = None) -> dict[str, Any]:
    try:
        config = model.peft_config[adapter] if adapter else model.config
    except AttributeError:
        return {}
    return _without(config.to_dict(), (*NOT_ARCHITECTURE, "inference_mode", "base_model_name_or_path"))


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    return value


def _weights(model: nn.Module) -> bytes:
    tensors = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.numel()}
    header = _canonical([(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in tensors.items()])
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors.values():
        by_device.setdefault(tensor.device, []).append(_sample(tensor))
    # One copy per device, not one per tensor.
    return header + b"".join(torch.cat(samples).cpu().numpy().tobytes() for samples in by_device.values())


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLES)][:SAMPLES].contiguous().view(torch.uint8)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The repository of the working directory; a file that git does not track does not make it dirty."""

    def run(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return {"commit": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
