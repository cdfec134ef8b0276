"""One state object for the whole run. What is not in it is not continued.

A checkpoint folder holds the model (or its adapters) and the tokenizer as `save_pretrained` writes them, and beside them
`other_tensors.safetensors` (`weights.py`), `optimizer.pt`, `scheduler.pt`, `random-<rank>.pt`, `trainer_state.json` (as
transformers has it, callbacks included) and `loop_state.json` (cursor, meter, metrics_offset, stop flags).
"""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from burnish.checkpoint.files import CheckpointError
from burnish.checkpoint.random import random_state, set_random_state
from burnish.checkpoint.trainer_state import TrainerControl, TrainerState
from burnish.checkpoint.weights import load_model, save_model

__all__ = ["TrainState", "TrainerControl", "TrainerState", "random_state", "set_random_state"]


@runtime_checkable
class ExportableState(Protocol):
    """What `transformers.trainer_callback.ExportableState` asks of a callback that has something to remember."""

    def state(self) -> dict[str, Any]: ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Any: ...


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
    """Metrics gathered since the last log line: name → (total, count). Written as the sum over all ranks; rank 0 takes it back."""
    metrics_offset: int = 0
    """Bytes of metrics.jsonl that belong to this state (`MetricsFile.sync`)."""
    callbacks: list[Any] = field(default_factory=list)
    """Those that are an `ExportableState` are saved, and restored in place."""
    processing_class: Any = None
    """Tokenizer or processor, saved beside the model so that the folder is complete; not loaded."""

    def write(self, folder: Path, random_states: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Write the state into `folder`; call on rank 0.

        `random_states` holds each rank's `random_state()` in rank order (gathered by the caller, on every rank); without
        it this process is alone.

        Raises:
            CheckpointError: something in the state cannot be read back safely (`torch.load(weights_only=True)`, JSON).
        """
        save_model(self.model, folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        _save(self.optimizer.state_dict(), folder / "optimizer.pt", self.optimizer)
        if self.scheduler is not None:
            _save(self.scheduler.state_dict(), folder / "scheduler.pt", self.scheduler)
        for rank, state in enumerate(random_states or [random_state()]):
            _save(state, folder / f"random-{rank}.pt", "random generators")
        self.trainer.stateful_callbacks = _callback_states(self.callbacks)
        self.trainer.save_to_json(folder / "trainer_state.json")
        loop_state = {
            "cursor": self.cursor,
            "meter": self.meter,
            "metrics_offset": self.metrics_offset,
            "should_training_stop": self.control.should_training_stop,
            "should_epoch_stop": self.control.should_epoch_stop,
        }
        (folder / "loop_state.json").write_text(json.dumps(loop_state, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path, rank: int = 0) -> tuple[str, ...]:
        """Restore from `folder` in place; call on every rank with its own rank. Model and optimizer must exist already.

        How often to log, save and evaluate, `max_steps` and the like stay those of this run.
        Returns sentences that the user should see: callbacks whose saved state found no owner, or the other way round.

        Raises:
            CheckpointError: a tensor is missing, or has another shape or dtype than this run's; or the checkpoint was
                written by fewer processes than this run has.
        """
        if not (folder / f"random-{rank}.pt").exists():
            raise CheckpointError(
                f"{folder} holds no random state for rank {rank}; start as many processes as wrote it "
                f"({len(list(folder.glob('random-*.pt')))}), or give this run another output_dir."
            )
        load_model(self.model, folder)
        _load_optimizer(self.optimizer, folder)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(_load(folder / "scheduler.pt"))
        self.trainer.restore(TrainerState.load_from_json(folder / "trainer_state.json"))
        loop_state = json.loads((folder / "loop_state.json").read_text(encoding="utf-8"))
        epoch, index = loop_state["cursor"]
        self.cursor = (epoch, index)
        self.meter = {} if rank else {name: (total, count) for name, (total, count) in loop_state["meter"].items()}
        self.metrics_offset = loop_state["metrics_offset"]
        self.control.should_training_stop = loop_state["should_training_stop"]
        self.control.should_epoch_stop = loop_state["should_epoch_stop"]
        notes = _restore_callbacks(self.callbacks, self.trainer.stateful_callbacks)
        set_random_state(_load(folder / f"random-{rank}.pt"))
        return notes


def _save(value: Any, path: Path, owner: object) -> None:
    # Given a path, torch hides the errno of a full disk; given a file, it chains the OSError.
    with path.open("wb") as file:
        torch.save(value, file)
    try:
        torch.load(path, weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        name = owner if isinstance(owner, str) else type(owner).__name__
        raise CheckpointError(
            f"The state of {name} could be written but not read back with torch.load(weights_only=True); "
            "let its state_dict hold nothing but tensors, numbers, strings, lists and dicts."
        ) from error


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    saved = _load(folder / "optimizer.pt")
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
            if isinstance(value, torch.Tensor) and live[index][name].dtype != value.dtype:
                live[index][name] = value.to(live[index][name].device)


def _callback_states(callbacks: Sequence[Any]) -> dict[str, Any]:
    """As transformers writes them: class name → state, or a list of states in the callbacks' order."""
    states = defaultdict(list)
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            name = type(callback).__name__
            states[name].append(callback.state())
            try:
                json.dumps(states[name])
            except TypeError as error:
                raise CheckpointError(
                    f"The state of callback {name} is no JSON ({error}); let its state() return numbers, strings, lists and dicts only."
                ) from error
    return {name: values[0] if len(values) == 1 else values for name, values in states.items()}


def _restore_callbacks(callbacks: Sequence[Any], states: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    waiting = {name: list(saved) if isinstance(saved, list) else [saved] for name, saved in states.items()}
    for callback in callbacks:
        if not isinstance(callback, ExportableState):
            continue
        name = type(callback).__name__
        if not waiting.get(name):
            notes.append(f"Callback {name} has no state in the checkpoint and starts afresh.")
            continue
        saved = waiting[name].pop(0)
        if (args := callback.state()["args"]) != saved["args"]:
            notes.append(f"Callback {name} continues with {saved['args']} from the checkpoint, not with {args}.")
        # In place: the user may hold on to the callback, and other callbacks to it.
        vars(callback).update(vars(type(callback).from_state(saved)))
    unused = (name for name, left in waiting.items() for _ in left)
    return (*notes, *(f"The checkpoint's state of callback {name} is not used: this run has no such callback." for name in unused))
