"""One report for a run: metrics.jsonl, the console and the trackers, told together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from burnish.report.console import Console
from burnish.report.memory import MEMORY, note_memory
from burnish.report.metrics import MetricsFile
from burnish.report.trackers import Trackers


class Reporter:
    """On the main process only; the others have one without file and trackers, whose console is silent."""

    def __init__(self, console: Console, metrics: MetricsFile | None = None, trackers: Trackers | None = None) -> None:
        self.console = console
        self.metrics = metrics
        self.trackers = trackers

    @classmethod
    def open(cls, console: Console, path: Path, offset: int, step: int, trackers: Trackers) -> Reporter:
        """Goes on after `step`, when metrics.jsonl had `offset` bytes; what it says of later steps is taken back."""
        metrics = MetricsFile(path)
        if step == 0:
            path.with_name(MEMORY).unlink(missing_ok=True)
        if lines := metrics.truncate(offset):
            console.message(f"Took back what {path} says of steps after step {step}; lines: {lines}.")
        return cls(console, metrics, trackers)

    def advance(self, step: int) -> None:
        self.console.advance(step)

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        self._write(step, logs, "training")
        self.console.log(step, logs)

    def evaluated(self, step: int, metrics: Mapping[str, float], name: str) -> None:
        self._write(step, {f"{name}_{key}": value for key, value in metrics.items()}, name)
        self.console.evaluated(step, {f"{name}_{key}": value for key, value in metrics.items()}, name)

    def _write(self, step: int, values: Mapping[str, float], phase: str) -> None:
        if self.metrics is not None:
            self.metrics.append({"step": step, **values})
            note_memory(self.metrics.path.parent, step, phase)
        if self.trackers is not None:
            self.trackers.log(step, values)

    def sync(self) -> int:
        """Flushes metrics.jsonl to the disk; its size in bytes, which a checkpoint stores."""
        return self.metrics.sync() if self.metrics is not None else 0

    def close(self) -> None:
        self.console.stop()
        if self.metrics is not None:
            self.metrics.close()
        if self.trackers is not None:
            self.trackers.close()
