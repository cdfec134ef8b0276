"""Metrics as columns: for each name the steps at which it was written, and its values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from burnish.report.advice import Advice
from burnish.report.metrics import NON_FINITE

Series = dict[str, tuple[list[int], list[float | str]]]
"""Name → (steps, values). NaN and infinities are the strings that metrics.jsonl has for them."""


def series_of(lines: Iterable[Mapping[str, Any]]) -> Series:
    """Of lines of metrics.jsonl, in their order; what is no number is left out. Values have six significant digits, counts all."""
    found: Series = {}
    for line in lines:
        step = line.get("step")
        if not isinstance(step, int):
            continue
        for name, value in line.items():
            if name != "step" and (short := _short(value)) is not None:
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(short)
    return found


class Adviser:
    """What `Advice` says of a run's log lines, each with the step after which it was said."""

    def __init__(self) -> None:
        self._advice = Advice()

    def of(self, lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Of further lines. Those of evaluations are of other rollouts, and passed over."""
        said = []
        for line in lines:
            means = {name: value for name, value in line.items() if isinstance(value, int | float)}
            if "reward" in means:
                said += [{"step": line.get("step"), "said": sentence} for sentence in self._advice.of(means)]
        return said


def _short(value: Any) -> float | str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, str) and value in NON_FINITE else None
