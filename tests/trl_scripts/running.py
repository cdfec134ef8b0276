"""A script with its import lines changed, run."""

from __future__ import annotations

import math
from typing import Any

from tests.trl_scripts.folders import with_burnish


def run(script: str) -> Any:
    """The trainer that it made, at the end of its training: its steps are counted and its losses numbers."""
    names: dict[str, Any] = {"__name__": "script"}
    exec(compile(with_burnish(script), "script", "exec"), names)
    trainer = names["trainer"]
    assert trainer.state.global_step == trainer.state.max_steps
    last = trainer.state.log_history[-1]
    assert math.isfinite(last["loss"])
    assert last["learning_rate"] >= 0
    return trainer
