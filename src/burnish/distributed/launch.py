"""Launch facts and collectives. Nothing else in the library calls `torch.distributed`.

Every collective has the deadline of the run's `ddp_timeout`, and says what it waited for when that has passed.
"""

from __future__ import annotations

import faulthandler
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
import torch.distributed as dist

from burnish.config.processes import Processes, processes
from burnish.distributed.watch import WATCHES, DistributedError, Watch, connect

TIMEOUT = 1800.0
"""Seconds, of `ddp_timeout`'s default."""
TOTALS: list[str] = []
"""Names that all ranks have agreed on, in the order of `all_sum`'s columns; the same on every rank at all times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Which of how many processes this is, and where its tensors live."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    """Processes on this machine."""
    device: torch.device = torch.device("cpu")
    timeout: float = TIMEOUT
    """Seconds that a rank waits for another."""
    watch: Watch | None = field(default=None, repr=False, compare=False)

    @property
    def main(self) -> bool:
        return self.rank == 0


def launch(timeout: float = TIMEOUT, folder: Path | None = None) -> Launch:
    """Joins the processes that torchrun, `burnish --devices`, accelerate or srun has started; alone where none of them has.

    Tensors on the CPU travel by gloo, those on GPUs by NCCL. `timeout` (seconds) holds for joining and for every
    collective. When a rank fails, the stacks of all are written into `folder`, `rank-<rank>.txt` each.

    Raises:
        ConfigError: the environment says what cannot be.
        DistributedError: there are fewer GPUs than processes on this machine, or a process did not join in time.
    """
    found = processes()
    device = _device(found)
    if found.world_size > 1 and not dist.is_initialized():
        _join(found, device, timeout)
    if found.world_size > 1 and not WATCHES:
        if "cpu:gloo" not in dist.get_backend_config():
            raise DistributedError("The process group has no gloo; leave it to burnish to make one, or name no backend, which gives both.")
        connect(found.rank, found.world_size, found.master_addr)
    for watch in WATCHES:
        watch.folder = folder or watch.folder
        set_timeout(timeout)
    return Launch(
        rank=found.rank,
        world_size=found.world_size,
        local_rank=found.local_rank,
        local_world_size=found.local_world_size,
        device=device,
        timeout=timeout,
        watch=WATCHES[0] if WATCHES else None,
    )


def _device(found: Processes) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    gpus, index = torch.cuda.device_count(), found.local_rank
    if gpus == 1 and "SLURM_LOCALID" in os.environ:  # each task is shown its own GPU only
        index = 0
    if index >= gpus:
        raise DistributedError(
            f"Rank {found.rank} is process {index} of this machine, and there are GPUs for {gpus}; start as many processes as GPUs."
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _join(found: Processes, device: torch.device, timeout: float) -> None:
    os.environ |= found.environment  # Slurm's facts, in the words that PyTorch and other libraries read
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
    except (dist.DistError, RuntimeError) as error:
        where, reason = f"{found.master_addr}:{found.master_port}", str(error).partition("\n")[0]
        raise DistributedError(
            f"Rank {found.rank} of {found.world_size} waited up to {timeout:g} s at {where} for all ranks to join, in vain: {reason}"
        ) from error
    if not faulthandler.is_enabled():
        faulthandler.enable()


def set_timeout(seconds: float, group: dist.ProcessGroup | None = None) -> None:
    """Of the collectives in `group`; of all ranks where it is None. Groups of a device mesh begin with PyTorch's own."""
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


def seed_everything(seed: int) -> None:
    """Python, NumPy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def waiting(what: str, here: Launch) -> Iterator[None]:
    """Around whatever waits for other ranks, `what` being "the gradients of step 12", say.

    Raises DistributedError where one of them is late or gone: who waited for what, how long, and which ranks were not there.
    """
    if here.watch is None:
        yield
    else:
        with here.watch.at(what):
            yield


def all_sum(values: Mapping[str, tuple[float, float]], here: Launch, what: str = "sums") -> dict[str, tuple[float, float]]:
    """Adds up (total, count) by name over all ranks, in float64. Ranks may know different names, and all get all of them.

    One collective, but for the first time that a name is seen. `what` is waited for, as `waiting` says, and must be the same
    on every rank. Raises DistributedError where it is not.
    """
    if here.world_size == 1:
        return dict(values)
    place = float(crc32(what.encode()))
    with waiting(what, here):
        sums = _sum_known(values, place)
        if sums[-2] != place * here.world_size:
            raise DistributedError(
                f"Rank {here.rank} is at {what}, and another rank elsewhere; does a callback end the run on one of them?"
            )
        if sums[-1]:  # somebody has names that not all know
            everyone: list[Any] = [None] * here.world_size
            dist.all_gather_object(everyone, sorted(set(values) - set(TOTALS)))
            TOTALS.extend(sorted({name for names in everyone for name in names}))
            sums = _sum_known(values, place)
    totals, counts, present = sums[:-2].view(3, -1).tolist()
    return {name: (totals[i], counts[i]) for i, name in enumerate(TOTALS) if present[i]}


def _sum_known(values: Mapping[str, tuple[float, float]], place: float) -> torch.Tensor:
    """Totals, counts, on how many ranks each name is; where the ranks are; and how many names were left out."""
    pairs = [values.get(name, (0.0, 0.0)) for name in TOTALS]
    columns = [*(total for total, _ in pairs), *(count for _, count in pairs), *(float(name in values) for name in TOTALS)]
    sums = torch.tensor([*columns, place, float(len(set(values) - set(TOTALS)))], dtype=torch.float64)
    dist.all_reduce(sums)
    return sums


def gather(value: Any, here: Launch, what: str = "values") -> list[Any]:
    """Every rank's value, in rank order, on every rank. `what` is waited for, as `waiting` says."""
    if here.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * here.world_size
    with waiting(what, here):
        dist.all_gather_object(everyone, value)
    return everyone


def barrier(here: Launch, what: str = "all ranks") -> None:
    """Nobody goes on before all have come. `what` is waited for, as `waiting` says."""
    gather(None, here, what)
