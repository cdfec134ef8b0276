"""What scripts written for `transformers.Trainer` call beside `train`, `evaluate` and `save_model`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.config.arguments import METHODS_INSTEAD


class Familiar:
    """Methods that need nothing but a trainer's `here`, `console`, `args` and `state`."""

    here: Any
    console: Any
    args: Any
    state: Any

    if not TYPE_CHECKING:  # to a type checker, what is not written is not there

        def __getattr__(self, name: str) -> Any:
            instead = METHODS_INSTEAD.get(name)
            raise AttributeError(f"{type(self).__name__} has no {name!r}" + (f": {instead}." if instead else "."))

    def is_world_process_zero(self) -> bool:
        return bool(self.here.main)

    def is_local_process_zero(self) -> bool:
        return bool(self.here.local_rank == 0)

    def log_metrics(self, split: str, metrics: Mapping[str, Any]) -> None:
        """Shows them, one a line, sorted."""
        lines = [f"  {name} = {round(value, 4) if isinstance(value, float) else value}" for name, value in sorted(metrics.items())]
        self.console.message("\n".join([f"{split} metrics:", *lines]))

    def save_metrics(self, split: str, metrics: Mapping[str, Any], combined: bool = True) -> None:
        """Writes `{split}_results.json` into `output_dir`, and with `combined` adds them to `all_results.json` there."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        together = folder / "all_results.json"
        known = json.loads(together.read_text(encoding="utf-8")) if combined and together.is_file() else {}
        written = {f"{split}_results.json": dict(metrics)} | ({together.name: known | dict(metrics)} if combined else {})
        for name, one in written.items():
            (folder / name).write_text(json.dumps(one, indent=4, sort_keys=True) + "\n", encoding="utf-8")

    def save_state(self) -> None:
        """Writes `trainer_state.json` into `output_dir`; each checkpoint has one in any case."""
        if self.is_world_process_zero():
            Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
            self.state.save_to_json(Path(self.args.output_dir) / "trainer_state.json")
