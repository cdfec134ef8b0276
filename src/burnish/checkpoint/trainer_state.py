"""`TrainerState` and `TrainerControl` as `transformers.TrainerCallback`s expect them, without importing transformers.

Field names and their meaning are those of `transformers.trainer_callback`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRESS = (
    "epoch",
    "global_step",
    "num_input_tokens_seen",
    "total_flos",
    "log_history",
    "best_metric",
    "best_global_step",
    "best_model_checkpoint",
    "stateful_callbacks",
)
"""Fields that training changes. The others say how this run was asked to be, and which process this is."""


@dataclass
class TrainerState:
    """Where the run is and what it has logged. One step is one optimizer step."""

    epoch: float = 0.0
    global_step: int = 0
    max_steps: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    """Tokens that went through the model in training."""
    total_flos: float = 0
    log_history: list[dict[str, float]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: dict[str, Any] = field(default_factory=dict)
    """Name of a callback's class → its exported state (a list of them where there are several)."""

    def to_json(self) -> str:
        """Floats are written so that they are read back to the bit; NaN and infinities as JavaScript spells them."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    def save_to_json(self, json_path: str | Path) -> None:
        Path(json_path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load_from_json(cls, json_path: str | Path) -> TrainerState:
        return cls(**json.loads(Path(json_path).read_text(encoding="utf-8")))

    def restore(self, saved: TrainerState) -> None:
        """Take over `saved`'s progress, in place."""
        vars(self).update({name: vars(saved)[name] for name in PROGRESS})


@dataclass
class TrainerControl:
    """What callbacks ask of the loop. The loop calls `new_epoch` and `new_step`; a stop of the training is never undone."""

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False

    def new_epoch(self) -> None:
        self.should_epoch_stop = False

    def new_step(self) -> None:
        self.should_save = self.should_evaluate = self.should_log = False
