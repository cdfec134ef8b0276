"""Tensors of which each rank may hold a part: whole, filled, and in files that any number of ranks reads back.

Files are PyTorch's own distributed checkpoints (`torch.distributed.checkpoint`): every rank writes what it holds, and what
all hold alike is written once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from burnish.distributed.launch import Launch, waiting

warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", module="torch.distributed.checkpoint")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; call on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copies `value`, which is all of it, into what this rank holds of `tensor`. No other rank is needed."""
    if isinstance(tensor, DTensor):
        local(tensor).copy_(local(_cut_like(tensor, value)))
    else:
        tensor.copy_(value)


def _cut_like(tensor: DTensor, value: Tensor) -> DTensor:
    # with no source rank, each cuts its own part out of what it has itself
    return distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)


def empty_like(tensor: Tensor, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """To read something into that belongs to `tensor`: sharded as it is where it has the same size, else whole on every rank."""
    if not isinstance(tensor, DTensor):
        return torch.empty(size, dtype=dtype)
    if size == tensor.shape:
        return torch.empty_like(tensor, dtype=dtype, requires_grad=False)
    alike = [Replicate()] * tensor.device_mesh.ndim
    return DTensor.from_local(torch.empty(size, dtype=dtype, device=local(tensor).device), tensor.device_mesh, alike, run_check=False)


class Channel:
    """A way to the other ranks beside the one that training uses, for work in the background."""

    def __init__(self, here: Launch) -> None:
        self.here = here
        self._group: Any = None

    def open(self) -> None:
        """Call on every rank, before its first use."""
        if self.here.world_size > 1 and self._group is None:
            with waiting("a second way to all ranks", self.here):
                self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.here.timeout))

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on every rank."""
        if self._group is None:
            return [value]
        everyone: list[Any] = [None] * self.here.world_size
        with waiting("the other ranks' parts of a checkpoint", self.here):
            dist.all_gather_object(everyone, value, group=self._group)
        return everyone

    def write(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        """Call on every rank. Raises what the first rank that could not write its part raised."""
        writer = dcp.FileSystemWriter(folder, sync_files=False)
        try:
            with waiting("all ranks to write their shards", self.here):
                dcp.save(dict(tensors), storage_writer=writer, process_group=self._group, no_dist=self._group is None)
        except dcp.api.CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error


def read(folder: Path, like: Callable[[str, torch.Size, torch.dtype], Tensor]) -> dict[str, Tensor]:
    """What `Channel.write` wrote. `like(name, size, dtype)` makes the tensor that is read into. No other rank is needed."""
    reader = dcp.FileSystemReader(folder)
    found = reader.read_metadata().state_dict_metadata
    tensors = {n: like(n, m.size, m.properties.dtype) for n, m in found.items() if isinstance(m, TensorStorageMetadata)}
    dcp.load(tensors, storage_reader=reader, no_dist=True)
    return tensors
