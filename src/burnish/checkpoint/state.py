"""One state object for the whole run. What is not in it is not continued.

A checkpoint folder holds the model (or its adapters) and the tokenizer as `save_pretrained` writes them, and beside them
`other_tensors.safetensors` (`weights.py`), `optimizer/` and `optimizer.pt` (`optimizer_state.py`), `scheduler.pt`,
`random-<rank>.pt`, `method.safetensors` (a reference that follows the policy), `trainer_state.json` (as transformers has it, callbacks
included) and `loop_state.json` (cursor, meters, metrics_offset and its hash, stop flags, the method's own state). It is the same
whether one process wrote it or many, and any number of them continues it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from burnish.checkpoint.files import CheckpointError
from burnish.checkpoint.optimizer_state import TENSORS, Parts, load_object, load_optimizer, save_object, take_apart
from burnish.checkpoint.random import random_state, set_random_state
from burnish.checkpoint.trainer_state import TrainerControl, TrainerState
from burnish.checkpoint.weights import Weights, gather_weights, load_model, save_model
from burnish.distributed.launch import Launch, gather, seed_everything
from burnish.distributed.shards import Channel
from burnish.ops.reduce import Totals, add

__all__ = ["TrainState", "TrainerControl", "TrainerState", "random_state", "set_random_state"]


METHOD = "method.safetensors"


@runtime_checkable
class ExportableState(Protocol):
    """What `transformers.trainer_callback.ExportableState` asks of a callback that has something to remember."""

    def state(self) -> dict[str, Any]: ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Any: ...


class Remembering(Protocol):
    """A method with something to remember beside the policy: `run.Method` says what each of these is."""

    def state(self) -> dict[str, Any]: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None: ...


@dataclass(kw_only=True)
class TrainState:
    """Everything that changes while training. A `snapshot`, written, then `load` in new processes continues the run to the bit.

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
    """Metrics that this rank has gathered since the last log line: name → (total, count)."""
    metrics_offset: int = 0
    """Bytes of metrics.jsonl that belong to this state (`MetricsFile.sync`)."""
    metrics_sha256: str = ""
    """Of those bytes."""
    callbacks: list[Any] = field(default_factory=list)
    """Those that are an `ExportableState` are saved, and restored in place."""
    processing_class: Any = None
    """Tokenizer or processor, saved beside the model so that the folder is complete; not loaded."""
    method: Remembering | None = None

    def snapshot(self, here: Launch, *, copy: bool = False) -> Snapshot:
        """What a checkpoint holds; call on every rank. `copy`: in the CPU's memory, so that training may go on while it is written.

        Raises:
            CheckpointError: a callback's state is no JSON.
        """
        random_states, meters = zip(*gather((random_state(), self.meter), here, "what each rank alone knows, to save it"), strict=True)
        self.trainer.stateful_callbacks = _callback_states(self.callbacks)
        loop_state = {
            "cursor": self.cursor,
            "meters": meters,
            "metrics_offset": self.metrics_offset,
            "metrics_sha256": self.metrics_sha256,
            "should_training_stop": self.control.should_training_stop,
            "should_epoch_stop": self.control.should_epoch_stop,
            "method": self.method.state() if self.method else {},
        }
        tensors = self.method.tensors() if self.method else {}
        objects = {f"random-{rank}": state for rank, state in enumerate(random_states)}
        if self.scheduler is not None:
            objects["scheduler"] = deepcopy(self.scheduler.state_dict())
        return Snapshot(
            model=self.model,
            weights=gather_weights(self.model, here, copy=copy),
            optimizer=take_apart(self.optimizer, copy=copy),
            objects=objects,
            tensors={name: tensor.to("cpu", copy=copy) for name, tensor in tensors.items()} if here.main else {},
            texts={"trainer_state.json": self.trainer.to_json(), "loop_state.json": json.dumps(loop_state, indent=2) + "\n"},
            processing_class=self.processing_class,
            owners={"optimizer": type(self.optimizer).__name__, "scheduler": type(self.scheduler).__name__},
        )

    def load(self, folder: Path, here: Launch) -> tuple[str, ...]:
        """Restore from `folder` in place; call on every rank. Model and optimizer must exist already.

        How often to log, save and evaluate, `max_steps` and the like stay those of this run.
        Returns sentences that the user should see: another number of processes, callbacks whose saved state found no
        owner, or the other way round.

        Raises:
            CheckpointError: a tensor is missing, or has another shape or dtype than this run's.
        """
        load_model(self.model, folder)
        load_optimizer(self.optimizer, folder)
        self.optimizer.zero_grad(set_to_none=True)  # what a step that failed in this process has left
        if self.scheduler is not None:
            self.scheduler.load_state_dict(load_object(folder / "scheduler.pt"))
        self.trainer.restore(TrainerState.load_from_json(folder / "trainer_state.json"))
        loop_state = json.loads((folder / "loop_state.json").read_text(encoding="utf-8"))
        epoch, index = loop_state["cursor"]
        self.cursor = (epoch, index)
        self.meter = _own_meter(loop_state["meters"], here)
        self.metrics_offset = loop_state["metrics_offset"]
        self.control.should_training_stop = loop_state["should_training_stop"]
        self.control.should_epoch_stop = loop_state["should_epoch_stop"]
        if self.method is not None:
            path = folder / METHOD
            self.method.restore(loop_state["method"], load_file(path) if path.exists() else {})
        notes = _restore_callbacks(self.callbacks, self.trainer.stateful_callbacks)
        return (*self._restore_random(folder, here), *notes)

    def _restore_random(self, folder: Path, here: Launch) -> tuple[str, ...]:
        """Each rank continues its own generators; as another number of ranks they begin anew, with the step in their seed."""
        wrote = len(list(folder.glob("random-*.pt")))
        if wrote == here.world_size:
            set_random_state(load_object(folder / f"random-{here.rank}.pt"))
            return ()
        step = self.trainer.global_step
        seed_everything(int(torch.initial_seed()) + 1_000_003 * step)
        by = f"{wrote} process{'es' if wrote > 1 else ''}"
        return (f"Written by {by} and continued by {here.world_size}: the same examples; dropout draws other numbers.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A checkpoint's content, before it is in files."""

    model: nn.Module
    """For its configuration alone."""
    weights: Weights
    optimizer: Parts
    objects: Mapping[str, Any]
    """Name → what goes into `<name>.pt`."""
    tensors: Mapping[str, Tensor]
    """The method's own."""
    texts: Mapping[str, str]
    processing_class: Any
    owners: Mapping[str, str]
    """Whose state it is, for an error."""

    def write_part(self, folder: Path, channel: Channel) -> None:
        """What each rank writes; call on every rank."""
        channel.write(self.optimizer.tensors, folder / TENSORS)

    def write_rest(self, folder: Path) -> None:
        """All else; call on rank 0.

        Raises:
            CheckpointError: something in the state cannot be read back safely (`torch.load(weights_only=True)`).
        """
        save_model(self.model, self.weights, folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        for name, value in {"optimizer": self.optimizer.skeleton, **self.objects}.items():
            save_object(value, folder / f"{name}.pt", self.owners.get(name, "the random generators"))
        if self.tensors:
            save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, folder / METHOD)
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def _own_meter(meters: Sequence[Mapping[str, Sequence[float]]], here: Launch) -> Totals:
    """Each rank takes back its own, so that sums are added up in the same order as without a stop; of other ranks, rank 0 all."""
    mine = [meters[here.rank]] if len(meters) == here.world_size else meters if here.main else []
    own: Totals = {}
    for meter in mine:
        add(own, {name: (total, count) for name, (total, count) in meter.items()})
    return own


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
