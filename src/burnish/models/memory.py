"""How much memory a run takes, from the configuration alone; and from that, how many tokens fit a micro-batch.

Weights, gradients and the optimizer's state follow from shapes and dtypes. What a micro-batch holds beside them is found by a
trace (`models/trace.py`). What is below PyTorch is reasoned: see `PROCESS`, `MAPPED` and `_communication`. On a CPU the sum is
compared with measured peaks by `bench/plan.py`; for CUDA the same terms are added up, and have not been compared.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from burnish.config.model import ModelConfig
from burnish.config.reference import ReferenceConfig
from burnish.config.train import TrainConfig
from burnish.models.load import Kind, ModelError, disable_dropout, load_skeleton
from burnish.models.lora import add_adapter, lora_config
from burnish.models.policy import Paths, Policy, TreeModel
from burnish.models.scorer import Scorer
from burnish.models.trace import Held, TraceError, trace_microbatch, trace_optimizer
from burnish.ops.logprobs import CHUNK_ELEMENTS

LARGEST = {"cpu": 512, "cuda": 16384}
"""Tokens above which a micro-batch is not faster on that device, only larger."""
SMALLEST = 256
"""Tokens below which a micro-batch is not worth its own forward."""
PROCESS = {"cpu": 430 * 2**20, "cuda": 512 * 2**20}
"""Python with torch, transformers and peft loaded (resident, Linux x86-64); on a GPU, its context and cuBLAS's workspaces."""
MAPPED = 2**20
"""Blocks of the CPU's memory that are larger are given back as soon as they are freed; see `give_back_freed_blocks`."""
KERNELS = 64
"""Kernels that oneDNN keeps, of about a MiB each. It multiplies bfloat16, and makes about fifteen for each length of a micro-batch."""
ROW = 1024
"""Tokens of the longest row, where nothing says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How many processes share a run, and on what kind of device."""

    device: str = "cpu"
    processes: int = 1
    per_node: int = 8
    """Processes of one machine, over which the hybrid kinds of FSDP shard."""

    def shards(self, fsdp: str) -> int:
        """Over how many processes each weight is spread."""
        return 1 if fsdp == "no" else min(self.per_node, self.processes) if fsdp.startswith("hybrid") else self.processes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one device, at the moment of a step when they are most."""

    whole: int
    """Of all weights, wherever they are; not part of the sum."""
    process: int = 0
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    reference: int = 0
    """Weights of a reference that is a model of its own."""
    communication: int = 0
    """DDP's buckets; under FSDP, what is gathered and what is being reduced."""
    holes: int = 0
    """Freed, and not given back by the allocator."""
    update: int = 0
    """While the optimizer runs, which is when the activations are gone."""
    held: Callable[[int], Held]
    """What a micro-batch of so many tokens adds."""

    def rows(self, tokens: int) -> dict[str, int]:
        """What is held when most is, with `tokens` in a micro-batch, by name; what is not held is left out."""
        held = self.held(tokens)
        most = max(held.head, held.layers)
        activations = held.saved if most == held.head else most
        passing = {"update": self.update} if self.update > most else {"activations": activations, "head": most - activations}
        parts = {
            "process": self.process,
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "reference": self.reference,
            "communication": self.communication,
            "holes": self.holes,
            **passing,
        }
        return {name: size for name, size in parts.items() if size}

    def total(self, tokens: int) -> int:
        return sum(self.rows(tokens).values())

    def describe(self, tokens: int) -> str:
        """`total` in words, with its parts."""
        parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in self.rows(tokens).items())
        why = self.held(tokens).rough
        return f"about {self.total(tokens) / 2**30:.1f} GiB ({parts})" + (f", activations by a rule of thumb, since {why}" if why else "")


def skeleton_policy(config: ModelConfig, args: TrainConfig, compute_dtype: torch.dtype, kind: Kind = "causal") -> TreeModel:
    """The policy that `config` and `args` describe, without weights (on the meta device): what can be known of it from its shapes.

    Whether the model passes its probe cannot: tree attention is assumed unless `attn_implementation` says otherwise.
    Raises ModelError, for quantized weights as well.
    """
    if config.load_in_4bit or config.load_in_8bit:
        raise ModelError("The memory of quantized weights is not estimated; leave out load_in_4bit or load_in_8bit to see it without.")
    model = load_skeleton(config, kind)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if (adapter := _adapter(config, kind)) is not None:
        model = add_adapter(model, adapter, kind)
    if args.disable_dropout:
        disable_dropout(model)
    paths = Paths(attention=config.attn_implementation or "tree")
    return (Policy if kind == "causal" else Scorer)(model, paths=paths, compute_dtype=compute_dtype)


def _adapter(config: ModelConfig, kind: Kind) -> Any | None:
    """The adapter that the flags describe, or that a folder holds."""
    folder = config.adapter_name_or_path or str(config.model_name_or_path)
    if config.adapter_name_or_path is None and not (Path(folder) / "adapter_config.json").is_file():
        return lora_config(config, kind)
    from peft import PeftConfig

    try:
        return PeftConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"The adapter {folder!r} could not be read ({error}); give a folder that holds adapter_config.json.") from error


def estimate_memory(policy: TreeModel, args: TrainConfig, placement: Placement, *, row: int = ROW) -> MemoryEstimate:
    """For a policy that is loaded (or on the meta device), with adapters and checkpointing set, and not yet spread over processes:
    it is traced once for each number of tokens that is asked for.

    `row` is the length of the longest rows: where attention is not fused, its scores grow with the square of it.
    """
    fsdp, kind = "no" if placement.processes == 1 else args.fsdp, placement.device
    shards, away = placement.shards(fsdp), args.fsdp_cpu_offload and kind != "cpu"
    parameters = list(policy.parameters())
    trained = [p for p in parameters if p.requires_grad]
    whole = sum(map(_bytes, parameters))
    state, update = trace_optimizer(policy.model, args)
    communication, reduced = _communication(policy, args, fsdp, placement.processes)

    def share(size: int) -> int:
        return 0 if away else size // shards

    return MemoryEstimate(
        whole=whole,
        process=PROCESS.get(kind, 0) + (KERNELS * 2**20 if (kind, policy.compute_dtype) == ("cpu", torch.bfloat16) else 0),
        weights=share(whole) + sum(map(_bytes, policy.buffers())),
        gradients=share(sum(map(_bytes, trained))),
        optimizer=share(state),
        reference=share(whole) if _has_reference(policy, args) else 0,
        communication=communication,
        holes=sum(size for size in map(_bytes, trained) if size < MAPPED) // shards if kind == "cpu" else 0,
        update=max(share(update), reduced),
        held=cache(partial(_held, policy, row=row, kind=kind, sharded=fsdp != "no")),
    )


def _has_reference(policy: TreeModel, args: TrainConfig) -> bool:
    """Whether a frozen model stands beside the policy: not where an adapter is switched off, nor where its log-probs are on disk."""
    if not (isinstance(args, ReferenceConfig) and args.held):
        return False
    return args.ref_model_name_or_path is not None or all(p.requires_grad for p in policy.parameters())


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _held(policy: TreeModel, tokens: int, *, row: int, kind: str, sharded: bool) -> Held:
    try:
        return trace_microbatch(policy, tokens, row=row, kind=kind, sharded=sharded, layers=tuple(_layers(policy)))
    except TraceError as error:
        return replace(_rule_of_thumb(policy, tokens, kind), rough=str(error))


def _communication(policy: TreeModel, args: TrainConfig, fsdp: str, processes: int) -> tuple[int, int]:
    """Bytes that are held for the other processes' sake during forward and backward, and while the last gradients are reduced.

    DDP copies all gradients to buckets. FSDP gathers in the compute dtype: what is in no layer for the whole micro-batch, and of
    the layers one while the next is on its way (or all, where they stay after the forward); one layer's gradient is whole, and
    once more in the dtype of the reduction.
    """
    if processes == 1:
        return 0, 0
    if fsdp == "no":
        return sum(_bytes(p) for p in policy.parameters() if p.requires_grad), 0
    prefixes = tuple(_layers(policy))
    size = {prefix: [0, 0] for prefix in (*prefixes, "")}
    for name, parameter in policy.named_parameters():
        group = size[next((prefix for prefix in prefixes if name.startswith(prefix)), "")]
        group[0] += parameter.numel()
        group[1] += parameter.numel() if parameter.requires_grad else 0
    rest, rest_trained = size.pop("")
    layers, trained = zip(*size.values(), strict=True) if size else ((0,), (0,))
    compute = (policy.compute_dtype or next(policy.parameters()).dtype).itemsize
    reduce = {"float32": 4, "bfloat16": 2}[args.fsdp_reduce_dtype]
    stay = fsdp in ("shard_grad_op", "hybrid_shard_zero2")
    gathered = compute * (rest + (sum(layers) if stay else 2 * max(layers)))
    return gathered + (compute + reduce) * max(trained), (compute + reduce) * rest_trained


def _layers(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """What the names of the parameters of each layer begin with. A layer is what FSDP shards as one: an item of an outermost list."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from (f"{prefix}{name}.{i}." for i in range(len(child)))
        else:
            yield from _layers(child, f"{prefix}{name}.")


def _rule_of_thumb(policy: TreeModel, tokens: int, kind: str) -> Held:
    """Of a decoder with gated feed-forwards, per token and layer: both norms with their float32 copies, queries, keys and values
    before and after rotation, the attention's output, the residual stream, and the four intermediates of the feed-forward."""
    config: dict[str, Any] = policy.causal_model.config.get_text_config().to_dict()
    hidden = config.get("hidden_size") or config["n_embd"]
    count = config.get("num_hidden_layers") or config["n_layer"]
    inner = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
    if experts := config.get("num_experts_per_tok"):
        inner = experts * (config.get("moe_intermediate_size") or inner)
    size = (policy.compute_dtype or torch.float32).itemsize
    layer = tokens * size * (12 * hidden + 4 * inner)
    checkpointed = bool(policy.causal_model.is_gradient_checkpointing)
    saved = count * tokens * size * hidden if checkpointed else count * layer
    chunk = 2 * 4 * min(CHUNK_ELEMENTS.get(kind, 2**26), tokens * config["vocab_size"]) + 4 * config["vocab_size"] * hidden
    head = 0 if isinstance(policy, Scorer) else chunk
    return Held(saved=saved, head=saved + head, layers=saved + layer)


def give_back_freed_blocks() -> None:
    """Keeps the C library's and oneDNN's memory to what tensors use, in this process. Call it before the model is loaded.

    glibc keeps most of what is freed for the next block, and tensors of a step have so many sizes and lifetimes that a third of what a
    process holds can be such holes. A block with a mapping of its own leaves none. Where the environment sets
    `MALLOC_MMAP_THRESHOLD_`, or the C library is another, nothing changes.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    m_mmap_threshold = -3  # malloc.h
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).mallopt(m_mmap_threshold, MAPPED)


def device_memory(device: torch.device) -> int:
    """All the memory of the device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fitting_tokens(estimate: MemoryEstimate, room: float, kind: str) -> int:
    """The largest power of two of tokens, between `SMALLEST` and the device's `LARGEST`, whose micro-batch fits `room` bytes; 0: none."""
    tokens = LARGEST.get(kind, 4096)
    while tokens >= SMALLEST and estimate.total(tokens) > room:
        tokens //= 2
    return tokens if tokens >= SMALLEST else 0


def microbatch_tokens(estimate: MemoryEstimate, device: torch.device) -> int:
    """Tokens that fill at most 60% of the device; `SMALLEST` where nothing fits, since a run must have some.

    It looks at all the memory, not at what is free now, so that the same machine always cuts a step in the same way and a
    resumed run is the same run to the bit.
    """
    return fitting_tokens(estimate, 0.6 * device_memory(device), device.type) or SMALLEST
