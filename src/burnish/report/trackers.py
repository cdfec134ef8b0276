"""`report_to`: TensorBoard, trackio, Weights & Biases and MLflow, through their own libraries.

Each keeps its own settings where its users know them (`WANDB_PROJECT`, `WANDB_MODE`, `TRACKIO_PROJECT`,
`MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`, …). The ids of a run are kept in `<output_dir>/trackers.json`, so that a
resumed run goes on in the same place. What they show may hold steps that a kill took back; metrics.jsonl does not.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol


class TrackerError(RuntimeError):
    """A tracker was asked for that is unknown, whose library is missing, or that cannot begin a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a tracker is told when a run begins."""

    name: str
    output_dir: Path
    config: Mapping[str, Any]
    """JSON-serialisable; may be nested."""
    start_step: int
    """Steps behind a resumed run; 0 for a new one."""
    run_id: str | None
    """The tracker's own id of the run that is resumed."""


class Tracker(Protocol):
    run_id: str | None

    def log(self, step: int, logs: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run_id: str | None = None
        # Steps after the checkpoint were taken back and come again.
        purge_step = run.start_step + 1 if run.start_step else None
        self._writer = SummaryWriter(run.output_dir / "tensorboard", purge_step=purge_step)
        self._writer.add_text("config", f"```json\n{json.dumps(run.config, indent=2)}\n```", run.start_step)

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Trackio:
    def __init__(self, run: Run) -> None:
        import trackio

        self.run_id: str | None = None
        # trackio finds a run by its name.
        resume = "allow" if run.start_step else "never"
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "burnish"), name=run.name, config=dict(run.config), resume=resume, embed=False
        )

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        self._run.log(dict(logs), step=step)

    def close(self) -> None:
        self._run.finish()


class WeightsAndBiases:
    def __init__(self, run: Run) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "burnish"),
            name=run.name,
            id=run.run_id,
            resume="allow" if run.run_id else None,
            dir=run.output_dir,
            config=dict(run.config),
        )
        self.run_id = self._run.id

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        self._run.log(dict(logs), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    def __init__(self, run: Run) -> None:
        import mlflow

        self._client = mlflow
        started = mlflow.start_run(run_id=run.run_id, run_name=run.name)
        self.run_id = started.info.run_id
        if not run.run_id:
            mlflow.log_dict(dict(run.config), "config.json")

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        self._client.log_metrics(dict(logs), step=step)

    def close(self) -> None:
        self._client.end_run()


TRACKERS: dict[str, Callable[[Run], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""Name in `report_to`, which is also its package's → its adapter."""


def check_trackers(names: Sequence[str]) -> None:
    """Call before anything is loaded; imports nothing.

    Raises:
        TrackerError: a name is unknown, or its library is not installed; the sentence says how to install it.
    """
    for name in names:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(TRACKERS)}."
            raise TrackerError(f"report_to names the unknown tracker '{name}'; {hint}")
        found = importlib.util.find_spec(name)
        # A folder of that name in the working directory, which wandb makes, is found too, but has no origin.
        if found is None or found.origin is None:
            raise TrackerError(
                f"report_to names '{name}', whose library is not installed; pip install {name}, or leave it out of report_to."
            )


class Trackers:
    """All trackers of a run. One that raises is reported once, counted in `failures`, and the run goes on."""

    failures: dict[str, int]
    """Tracker's name → how many calls raised."""

    def __init__(
        self,
        names: Sequence[str],
        run_name: str,
        output_dir: Path,
        config: Mapping[str, Any],
        *,
        start_step: int = 0,
        message: Callable[[str], None],
    ) -> None:
        """Main process only, before the first step. `start_step` above 0 continues a resumed run's trackers where their
        libraries can; `message` shows a sentence.

        Raises:
            TrackerError: as `check_trackers`, or a tracker cannot begin a run (no login, no server).
        """
        check_trackers(names)
        self.failures = dict.fromkeys(names, 0)
        self._message = message
        self._trackers: dict[str, Tracker] = {}
        ids_path = output_dir / "trackers.json"
        ids = json.loads(ids_path.read_text(encoding="utf-8")) if start_step and ids_path.exists() else {}
        for name in names:
            run = Run(name=run_name, output_dir=output_dir, config=config, start_step=start_step, run_id=ids.get(name))
            try:
                self._trackers[name] = TRACKERS[name](run)
            except Exception as error:
                self.close()
                raise TrackerError(f"{name} cannot begin a run ({_one_line(error)}); set it up, or leave it out of report_to.") from error
        if names:
            ids_path.parent.mkdir(parents=True, exist_ok=True)
            ids_path.write_text(json.dumps({name: tracker.run_id for name, tracker in self._trackers.items()}) + "\n", encoding="utf-8")

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        """Pass on what is a number; NaN and infinities too, which every tracker can show."""
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        for name, tracker in self._trackers.items():
            self._try(name, partial(tracker.log, step, numbers))

    def close(self) -> None:
        """End each tracker's run; safe to call twice."""
        for name, tracker in self._trackers.items():
            self._try(name, tracker.close)
        self._trackers = {}

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  whatever a tracker's library raises, the training is worth more
            self.failures[name] += 1
            if self.failures[name] == 1:
                self._message(f"{name} failed ({_one_line(error)}); training goes on, and metrics.jsonl has everything.")


def _one_line(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")
