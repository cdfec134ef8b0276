"""A state written into a folder by one process, without the folder being sealed."""

from pathlib import Path

from torch import nn

from burnish.checkpoint.state import TrainState
from burnish.checkpoint.weights import gather_weights, save_model
from burnish.distributed.launch import Launch
from burnish.distributed.shards import Channel


def write(state: TrainState, folder: Path) -> None:
    snapshot = state.snapshot(Launch())
    snapshot.write_part(folder, Channel(Launch()))
    snapshot.write_rest(folder)


def write_model(model: nn.Module, folder: Path) -> None:
    save_model(model, gather_weights(model, Launch(), copy=False), folder)
