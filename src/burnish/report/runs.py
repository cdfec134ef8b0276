"""What a run has left in its folder, read back: for `burnish compare` and the report. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.config.yaml_file import load
from burnish.report.events import EVENTS, read_events
from burnish.report.metrics import read_metrics
from burnish.report.sessions import since_anew

CONFIG, METRICS, ENVIRONMENT, DATA = "resolved.yaml", "metrics.jsonl", "environment.json", "data.json"


class RunError(ValueError):
    """A folder that is no run, or a file of a run that cannot be read. One sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run that is going on, was cut short, or was refused may lack any of this: what is not there is empty."""

    folder: Path
    config: Mapping[str, Any]
    """All options of model, data and method, by name."""
    metrics: tuple[Mapping[str, Any], ...]
    """In order: `step`, and either what was logged of training, or the metrics of one evaluation set under its prefix."""
    events: tuple[Mapping[str, Any], ...]
    """In order, of all starts since it was begun anew; `report/events.py` says what they are."""
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    """What the sets are, by name: "train", "eval" and so on."""

    @property
    def steps(self) -> int:
        """Optimizer steps that are done, as far as anything was written of them."""
        return max((one.get("step", 0) for one in (*self.metrics, *self.events)), default=0)


def read_run(folder: Path | str) -> RunRecord:
    """Reads a run's folder, of which nothing is changed.

    Raises RunError where it is no run's, or a file in it is not what a run writes; MetricsError for a line of metrics.jsonl.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in (CONFIG, METRICS, EVENTS)):
        found = "this is a file" if folder.is_file() else "this one has none" if folder.is_dir() else "there is no such folder"
        raise RunError(f"{folder} must be the output_dir of a run, which holds {CONFIG}, {METRICS} or {EVENTS}, and {found}.")
    here = {name: folder / name for name in (CONFIG, METRICS, EVENTS) if (folder / name).is_file()}
    try:
        return RunRecord(
            folder=folder,
            config=load(here[CONFIG])[0] if CONFIG in here else {},
            metrics=tuple(read_metrics(here[METRICS])) if METRICS in here else (),
            events=tuple(since_anew(read_events(here[EVENTS]))) if EVENTS in here else (),
            environment=_json(folder / ENVIRONMENT),
            data=_json(folder / DATA),
        )
    except OSError as error:
        raise RunError(f"{error.filename} cannot be read ({error.strerror}); see who may read it.") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); put the original back, or delete it to read the rest.") from None
    return dict(found) if isinstance(found, dict) else {}
