"""One state object for the whole run. What is not in it is not continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from burnish.checkpoint.trainer_state import TrainerControl, TrainerState

__all__ = ["TrainState", "TrainerControl", "TrainerState", "random_state", "set_random_state"]


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process: Python, NumPy, torch on the CPU and on each CUDA device."""
    raise NotImplementedError


def set_random_state(state: Mapping[str, Any]) -> None:
    """Inverse of `random_state`."""
    raise NotImplementedError


@dataclass(kw_only=True)
class TrainState:
    """Everything that changes while training. `write` then `load` in a new process continues the run to the bit.

    The folder is loadable by itself: a model by `transformers`, an adapter by PEFT.
    """

    model: nn.Module
    """Unwrapped (no DDP around it), with `save_pretrained`."""
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    trainer: TrainerState = field(default_factory=TrainerState)
    """`num_input_tokens_seen` in here is the count of tokens seen."""
    control: TrainerControl = field(default_factory=TrainerControl)
    """Of this only the two stop flags are saved: the others belong to the step that has just ended."""
    cursor: tuple[int, int] = (0, 0)
    """(epoch, index): the next example to draw is the index-th of that epoch's order."""
    meter: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Metrics gathered since the last log line: name → (total, count)."""
    metrics_offset: int = 0
    """Bytes of metrics.jsonl that belong to this state (`MetricsFile.sync`)."""
    callbacks: list[Any] = field(default_factory=list)
    """Those with a `state()` (`transformers.trainer_callback.ExportableState`) are saved and restored in place."""
    processing_class: Any = None
    """Tokenizer or processor, saved beside the model so that the folder is complete; not loaded."""

    def write(self, folder: Path, random_states: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Write the state into `folder`; call on rank 0.

        `random_states` holds each rank's `random_state()` in rank order (gathered by the caller, on every rank); without
        it this process is alone.

        Raises:
            CheckpointError: something in the state cannot be read back safely (`torch.load(weights_only=True)`).
        """
        raise NotImplementedError

    def load(self, folder: Path, rank: int = 0) -> tuple[str, ...]:
        """Restore from `folder` in place; call on every rank with its own rank. Model and optimizer must exist already.

        Returns sentences that the user should see: callbacks whose saved state found no owner, or the other way round.

        Raises:
            CheckpointError: a tensor is missing, or has another shape or dtype than this run's; or the checkpoint was
                written by fewer processes than this run has.
        """
        raise NotImplementedError
