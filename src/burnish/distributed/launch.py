"""Launch facts and collectives. Nothing else in the library calls `torch.distributed`."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

DEADLINE = timedelta(minutes=10)
"""For every collective; PyTorch names the one that waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Which of how many processes this is, and where its tensors live."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")

    @property
    def main(self) -> bool:
        return self.rank == 0


def launch() -> Launch:
    """Reads `RANK`, `WORLD_SIZE` and `LOCAL_RANK` as torchrun sets them, and joins the process group (gloo, or NCCL on GPU)."""
    rank, world, local = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=DEADLINE)
    return Launch(rank=rank, world_size=world, local_rank=local, device=device)


def seed_everything(seed: int) -> None:
    """Python, NumPy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def all_sum(values: Mapping[str, tuple[float, float]], here: Launch) -> dict[str, tuple[float, float]]:
    """Adds up (total, count) by name over all ranks, in float64. Ranks may know different names."""
    if here.world_size == 1:
        return dict(values)
    everyone: list[Any] = [None] * here.world_size
    dist.all_gather_object(everyone, dict(values))
    names = sorted({name for one in everyone for name in one})
    return {n: (sum(one[n][0] for one in everyone if n in one), sum(one[n][1] for one in everyone if n in one)) for n in names}


def gather(value: Any, here: Launch) -> list[Any]:
    """Every rank's value, in rank order, on every rank."""
    if here.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * here.world_size
    dist.all_gather_object(everyone, value)
    return everyone


def barrier(here: Launch) -> None:
    if here.world_size > 1:
        dist.barrier()


def wrap(policy: nn.Module, here: Launch) -> nn.Module:
    """DistributedDataParallel where there is more than one process."""
    if here.world_size == 1:
        return policy
    return DistributedDataParallel(policy, device_ids=[here.device] if here.device.type == "cuda" else None)


@contextmanager
def gradient_sync(policy: nn.Module, on: bool) -> Iterator[None]:
    """Gradients are averaged over ranks in the backward of the last micro-batch of a step only."""
    if on or not isinstance(policy, DistributedDataParallel):
        yield
    else:
        with policy.no_sync():
            yield
