"""`report_to`: TensorBoard, trackio, Weights & Biases and MLflow, through their own libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class TrackerError(RuntimeError):
    """A tracker was asked for that is unknown or whose library is missing."""


def check_trackers(names: Sequence[str]) -> None:
    """Call before anything is loaded; imports nothing.

    Raises:
        TrackerError: a name is unknown, or its library is not installed; the sentence says how to install it.
    """
    raise NotImplementedError


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
        resumed: bool = False,
        message: Callable[[str], None],
    ) -> None:
        """Main process only. `resumed` continues the tracker's run where its library can; `message` shows a sentence."""
        raise NotImplementedError

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
