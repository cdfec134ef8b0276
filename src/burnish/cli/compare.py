"""`burnish compare`: runs side by side on the terminal. Imports no torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from burnish.config.compare import CompareConfig
from burnish.report.compare import Comparison, Difference, Metric, Taken, Value, compare
from burnish.report.metrics import plain
from burnish.report.runs import read_run

ABSENT = "–"


def compare_runs(args: CompareConfig) -> int:
    """Prints the comparison. Raises RunError, MetricsError."""
    found = compare([read_run(Path(run)) for run in args.runs], args.metrics, args.at)
    if args.json:
        said = asdict(found) | {"metrics": [_as_json(metric) for metric in found.metrics]}
        print(json.dumps(plain(said), ensure_ascii=False, default=str))
    else:
        show(found)
    return 0


def _as_json(metric: Metric) -> dict[str, Any]:
    differences = [None if one is None else {**asdict(one), "beyond": one.beyond} for one in metric.difference]
    return asdict(metric) | {"difference": differences}


def show(found: Comparison) -> None:
    """One table, and what is the same in all of them in a sentence."""
    import rich.console
    from rich.markup import escape
    from rich.table import Table

    console = rich.console.Console()
    others = len(found.runs) - 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(overflow="fold", min_width=min(20, console.width // 4))
    for name in _names([run.run for run in found.runs]):
        table.add_column(escape(name), overflow="fold")
    for i in range(others):
        table.add_column(
            "difference" if others == 1 else f"difference {i + 2} - 1",
            justify="right",
            overflow="fold",
            min_width=min(17, console.width // 4),
        )

    def section(title: str, rows: Sequence[Sequence[str]]) -> None:
        if rows:
            table.add_row()
            table.add_row(f"[bold]{title}[/]")
        for row in rows:
            table.add_row(*map(escape, row))

    for row in _what_each_took(found.runs):
        table.add_row(*map(escape, row))
    section("options", _rows(found.config))
    differing = {title: _differing(values) for title, values in (("data", found.data), ("versions", found.versions))}
    for title, values in differing.items():
        section(title, _rows(values))
    section("metrics", [row for metric in found.metrics for row in _metric_rows(metric)])
    console.print(table)
    for sentence in _sentences(found, [title for title, values in differing.items() if not values]):
        console.print(f"\n{sentence}", markup=False, highlight=False, soft_wrap=True)


def _names(folders: Sequence[str]) -> list[str]:
    """Without what all of them begin with."""
    common = os.path.commonpath(list(map(os.path.abspath, folders)))
    names = [os.path.relpath(folder, common) for folder in folders]
    return names if "." not in names else list(folders)


def _what_each_took(runs: Sequence[Taken]) -> list[list[str]]:
    phases = dict.fromkeys(phase for run in runs for phase in run.seconds)
    rows = [["status", *(run.status for run in runs)], ["steps", *(f"{run.steps:,}" for run in runs)]]
    rows.append(["tokens", *(ABSENT if run.tokens is None else f"{run.tokens:,}" for run in runs)])
    rows.append(["seconds", *(_seconds(sum(run.seconds.values())) for run in runs)])
    rows += [[f"  {phase}", *(_seconds(run.seconds[phase]) if phase in run.seconds else ABSENT for run in runs)] for phase in phases]
    return rows


def _seconds(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _differing(values: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return {name: ones for name, ones in values.items() if any(one != ones[0] for one in ones)}


def _rows(values: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    return [[name, *(ABSENT if one is None else str(one) for one in ones)] for name, ones in values.items()]


def _metric_rows(metric: Metric) -> list[list[str]]:
    rows = [[metric.name, *map(_shown, metric.last), *map(_apart, metric.difference[1:])]]
    best = [ABSENT if one is None else f"{_shown(one)} at {one.step:,}" for one in metric.best]
    return rows + ([["  best", *best]] if any(metric.best) else [])


def _number(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 10_000 else f"{value:.4g}"


def _shown(value: Value | None) -> str:
    if value is None:
        return ABSENT
    return _number(value.value) + ("" if value.stderr is None else f" ± {value.stderr:.2g}")


def _apart(difference: Difference | None) -> str:
    if difference is None:
        return ABSENT
    error = "" if difference.stderr is None else f" ± {difference.stderr:.2g}"
    return f"{'+' if difference.value > 0 else ''}{_number(difference.value)}{error}{' *' if difference.beyond else '  '}"


def _sentences(found: Comparison, same: Sequence[str]) -> list[str]:
    said = [*(["options"] if not found.config else []), *same]
    sentences = [f"The same in all: {', '.join(said)}."] if said else []
    if any(one is not None and one.stderr is not None for metric in found.metrics for one in metric.difference):
        sentences.append(
            "± is one standard error; * marks a difference of more than two of its own, taking the runs as independent. "
            "Of many metrics, one in twenty is marked by chance."
        )
    return sentences
