"""Any optimizer's state, taken apart into tensors, of which each rank may hold a part, and a skeleton of all else."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.checkpoint.files import CheckpointError
from burnish.distributed.shards import empty_like, read

TENSORS = "optimizer"
"""The folder of the tensors; the skeleton is in `optimizer.pt` beside it."""
Path_ = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    tensors: dict[str, Tensor]
    """Path in the state, written as one name → a tensor of at least one axis."""
    skeleton: dict[str, Any]
    """The state without those ("state"), and their paths by name ("paths"). Steps are in here: one number a tensor."""


def take_apart(optimizer: torch.optim.Optimizer, *, copy: bool) -> Parts:
    """`copy`: in the CPU's memory, so that it stays as it is while training goes on."""
    tensors: dict[str, Tensor] = {}
    paths: dict[str, Path_] = {}

    def walk(value: Any, path: Path_) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(walk(item, (*path, i)) for i, item in enumerate(value))
        if not isinstance(value, Tensor):
            return value
        value = value.detach().to("cpu", copy=True) if copy else value.detach()
        if not value.ndim:
            return value
        name = "/".join(map(str, path))
        tensors[name], paths[name] = value, path
        return None

    state = walk(optimizer.state_dict(), ())
    return Parts(tensors=tensors, skeleton={"state": state, "paths": paths})


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Raises CheckpointError where the state is another optimizer's."""
    skeleton = load_object(folder / f"{TENSORS}.pt")
    saved, paths, owners = skeleton["state"], skeleton["paths"], list(_parameters(optimizer))

    def like(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        at = paths[name]  # ("state", index of the parameter, name)
        owned = at[0] == "state" and isinstance(at[1], int) and at[1] < len(owners)
        return empty_like(owners[at[1]], size, dtype) if owned else torch.empty(size, dtype=dtype)

    for name, tensor in read(folder / TENSORS, like).items():
        *way, last = paths[name]
        place = saved
        for key in way:
            place = place[key]
        place[last] = tensor
    try:
        optimizer.load_state_dict(saved)
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"The optimizer in {folder} does not fit this run's {type(optimizer).__name__} ({error}); "
            "use the optimizer that it was written with, or give this run another output_dir."
        ) from error
    # load_state_dict casts float state to its parameter's dtype; Adafactor, say, keeps float32 beside bfloat16.
    live = optimizer.state_dict()["state"]
    for index, values in saved["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor) and live[index][name].dtype != value.dtype:
                live[index][name] = value.to(live[index][name].device)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """In the order of their indices in the state."""
    for group in optimizer.param_groups:
        yield from group["params"]


def save_object(value: Any, path: Path, owner: str) -> None:
    """Raises CheckpointError for what could not be read back."""
    # Given a path, torch hides the errno of a full disk; given a file, it chains the OSError.
    with path.open("wb") as file:
        torch.save(value, file)
    try:
        torch.load(path, weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"The state of {owner} could be written but not read back with torch.load(weights_only=True); "
            "let its state_dict hold nothing but tensors, numbers, strings, lists and dicts."
        ) from error


def load_object(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
