"""One policy over several processes: copied (DDP), or sharded (FSDP2)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree

from burnish.config.values import ConfigError
from burnish.distributed.launch import Launch, barrier, gather, set_timeout, waiting
from burnish.distributed.shards import whole
from burnish.types import TokenOutputs

_pytree.register_dataclass(TokenOutputs)  # FSDP2 finds the tensors that a backward begins with in trees of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """How FSDP2 shards a policy. None of it changes what is computed, but for the two dtypes."""

    reshard: bool = True
    """Layers are given up after their forward and gathered again for their backward (ZeRO-3); False: they stay (ZeRO-2)."""
    hybrid: bool = False
    """Shards within each machine and copies from machine to machine."""
    offload: bool = False
    """Weights, gradients and optimizer wait in the memory of the CPU."""
    compute_dtype: torch.dtype | None = None
    """In which layers are gathered and computed; None: as they are."""
    reduce_dtype: torch.dtype | None = None
    """In which gradients are summed; None: in `compute_dtype`."""


def copied(policy: nn.Module, here: Launch) -> nn.Module:
    """DistributedDataParallel; as it is where there is one process."""
    if here.world_size == 1:
        return policy
    return DistributedDataParallel(policy, device_ids=[here.device] if here.device.type == "cuda" else None)


def make_mesh(here: Launch, sharding: Sharding) -> DeviceMesh:
    """Who holds which shard. Call on every rank. Raises ConfigError where a hybrid's machines have not as many processes each."""
    per_machine = set(gather(here.local_world_size, here, "how many processes each machine has") if sharding.hybrid else ())
    if len(per_machine) > 1:
        numbers = " and ".join(map(str, sorted(per_machine)))
        raise ConfigError(f"Hybrid shards need as many processes on every machine, and there are {numbers}; use fsdp='full_shard'.")
    sizes = {"replicate": here.world_size // here.local_world_size, "shard": here.local_world_size} if sharding.hybrid else {}
    sizes = sizes or {"shard": here.world_size}
    mesh = init_device_mesh(here.device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    for group in mesh.get_all_groups():
        set_timeout(here.timeout, group)
        # Never freed: gloo's threads end with their group, and one that drops its last work after the interpreter aborts the process.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    return mesh


def same_everywhere(model: nn.Module, here: Launch) -> None:
    """Gives every rank rank 0's tensors, as DDP does: shards of models that differ would be none of them. Call on every rank."""
    with waiting("rank 0's weights", here):
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def shard(policy: nn.Module, here: Launch, sharding: Sharding, mesh: DeviceMesh) -> None:
    """Shards `policy` in place, layer by layer, which no other rank is needed for; its parameters are new ones afterwards.

    What is in no layer (embeddings, last norm, head) belongs to the policy and stays whole from its forward to its backward,
    so that the chunked head finds its weight.
    """
    options: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=sharding.compute_dtype, reduce_dtype=sharding.reduce_dtype),
        "offload_policy": CPUOffloadPolicy(pin_memory=here.device.type == "cuda") if sharding.offload else OffloadPolicy(),
    }
    for layer in _layers(policy):
        fully_shard(layer, reshard_after_forward=sharding.reshard, **options)
    fully_shard(policy, reshard_after_forward=False, **options)
    register_fsdp_forward_method(policy, "logits")
    gathered: Callable[[Tensor], Tensor] = policy.logits  # type: ignore[assignment]

    def logits(ids: Tensor) -> Tensor:
        found = gathered(ids)
        _give_up(policy)
        return found

    policy.logits = logits  # type: ignore[assignment]
    policy.sharding = sharding  # type: ignore[assignment]
    policy.register_forward_hook(_give_up)


def _give_up(policy: nn.Module, *_: Any) -> None:
    """Without a backward nothing would give up what was gathered, and a checkpoint would find it in the place of the shards."""
    if not torch.is_grad_enabled():
        reshard(policy)


def reshard(policy: nn.Module) -> None:
    """Gives up all that was gathered for a forward."""
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def gathered(policy: nn.Module) -> Iterator[None]:
    """Inside, each rank has all weights of a sharded policy, and may run forwards without gradient that the others do not run.

    Enter and leave on every rank; of a policy that is not sharded nothing is done.
    """
    shards = [module for module in policy.modules() if isinstance(module, FSDPModule)]
    after: bool = bool(shards) and policy.sharding.reshard  # type: ignore[union-attr, assignment]
    for module in shards:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in shards:
            module.set_reshard_after_forward(module is not policy and after, recurse=False)
            module.reshard()


@contextmanager
def in_turn(here: Launch, at_once: int) -> Iterator[None]:
    """The ranks of each machine do what is inside one after another, `at_once` at a time."""
    mine = here.local_rank // at_once
    turns = max(gather(-(-here.local_world_size // at_once), here, "how many turns each machine takes"))
    for _ in range(mine):
        barrier(here, "its turn")
    yield
    for _ in range(turns - mine - 1):
        barrier(here, "the turns of the others")


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The items of the outermost lists of modules: a transformer's blocks, whatever it calls them."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else _layers(child)


@contextmanager
def gradient_sync(policy: nn.Module, on: bool) -> Iterator[None]:
    """Gradients of copies are averaged in the backward of the last micro-batch of a step only.

    Sharded ones are reduced in every backward, since whole gradients would not fit, and only the sum over machines waits.
    """
    if isinstance(policy, FSDPModule):
        policy.set_requires_all_reduce(on)
        policy.set_is_last_backward(on)
        yield
    elif on or not isinstance(policy, DistributedDataParallel):
        yield
    else:
        with policy.no_sync():
            yield


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Clips to a global norm over all ranks' shards, in place, and returns the norm before it, the same on every rank."""
    return whole(nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], max_norm))
