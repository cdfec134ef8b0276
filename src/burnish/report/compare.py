"""Runs side by side: what differs between them, what each took, and how far their metrics are apart. Imports no torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from burnish.config.values import nearest
from burnish.report.runs import RunError, RunRecord
from burnish.report.sessions import sessions, status

STDERR = "_stderr"
"""Behind the name of a metric: its standard error."""
FIRST = ("eval", "reward", "loss", "kl", "entropy", "completions/mean_length")
"""How the names of metrics begin that are shown before the others."""
ASIDE = re.compile(r"step|epoch|num_tokens|time/.*|.*_runtime")
"""What is logged and says how far a run is, or what it took."""
MORE = re.compile(r".*(reward|accuracy|accuracies|margins?|tokens_per_second|pass@\d+|rewards/.+/mean)")
LESS = re.compile(r".*(loss|nll|perplexity)")
"""Metrics of which more is better, or less; of others there is no best."""
PHASES = ("sampling", "scoring", "training", "evaluation", "saving")
OWN = {"output_dir", "run_name"}
"""Options that say which run it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    value: float
    stderr: float | None
    """Of one standard error; None where none was measured."""
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Of two means that are independent: the square of its standard error is the sum of their squares.

    Worked example: 0.75 ± 0.03 and 0.60 ± 0.04 differ by -0.15 ± 0.05, three standard errors: `beyond` two.
    """

    value: float
    stderr: float | None

    @property
    def beyond(self) -> bool:
        return self.stderr is not None and abs(self.value) > 2 * self.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of each run, None where a run has it not."""

    name: str
    last: tuple[Value | None, ...]
    best: tuple[Value | None, ...]
    """None where neither more nor less of it is better."""
    difference: tuple[Difference | None, ...]
    """Between the last of each run and that of the first; None of the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a run is, and what it took."""

    run: str
    status: str
    """As `sessions.status` has it: finished, running, failed, stopped, killed, refused or unknown."""
    steps: int
    tokens: int | None
    """That were trained on, prompts and repetitions included."""
    seconds: Mapping[str, float]
    """By phase: sampling, scoring, training, evaluation, saving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    runs: tuple[Taken, ...]
    config: Mapping[str, tuple[Any, ...]]
    """The options that differ; None where a run has no such option."""
    versions: Mapping[str, tuple[Any, ...]]
    """All, whether they differ or not; so of `data`."""
    data: Mapping[str, tuple[Any, ...]]
    metrics: tuple[Metric, ...]


def compare(runs: Sequence[RunRecord], metrics: Sequence[str] = (), at: int | None = None) -> Comparison:
    """As the runs were after `at` steps; None: as they are. `metrics`: names, with * and ?; none: all that the runs share.

    Raises RunError for a metric that no run has, and where a run has written nothing by then.
    """
    rows = [[row for row in run.metrics if at is None or row.get("step", 0) <= at] for run in runs]
    for run, its in zip(runs, rows, strict=True):
        if at is not None and not its:
            raise RunError(f"{run.folder} has logged nothing by step {at}; its first line is of {_first_step(run)}.")
    series = [_series(its) for its in rows]
    chosen = _chosen(series, metrics)
    return Comparison(
        runs=tuple(_taken(run, its, at) for run, its in zip(runs, rows, strict=True)),
        config={name: values for name, values in _beside([run.config for run in runs]).items() if _differ(values) and name not in OWN},
        versions=_beside([_versions(run) for run in runs]),
        data=_beside([{name: _data(said) for name, said in run.data.items()} for run in runs]),
        metrics=tuple(_metric(name, [one.get(name, []) for one in series], _better(name, series)) for name in chosen),
    )


def _first_step(run: RunRecord) -> str:
    return f"step {run.metrics[0].get('step', 0)}" if run.metrics else "no step"


def _beside(columns: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: tuple(column.get(name) for column in columns) for name in names}


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


# What a run took


def _taken(run: RunRecord, rows: Sequence[Mapping[str, Any]], at: int | None) -> Taken:
    tokens = [row["num_tokens"] for row in rows if "num_tokens" in row]
    steps = run.steps if at is None else min(at, run.steps)
    saves = [one for one in run.events if one.get("event") == "save" and one.get("step", 0) <= steps]
    taken = seconds(rows, run.config) | {"saving": math.fsum(one.get("seconds", 0.0) for one in saves)}
    return Taken(
        run=str(run.folder),
        status=status(run.folder, run.events)["state"],
        steps=steps,
        tokens=int(tokens[-1]) if tokens else None,
        seconds={name: round(taken[name], 3) for name in PHASES if taken.get(name)},
    )


def seconds(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> dict[str, float]:
    """Of sampling, scoring, training and evaluation, in the steps that `rows` are of; what a killed process had done since is not known.

    Worked example: 1,000 tokens at 50 a second are 20 s; in 10 steps of a sampling of 1.5 s each, 5 s of these are training. Where two
    steps share a sampling, it is begun in steps 1, 3, 5, …: in the first of two log lines of one step each, and not in the second.
    """
    found, step, tokens = Counter[str](), 0, 0
    per_sampling = (config.get("steps_per_generation") or 1) * (config.get("num_iterations") or 1)
    for row in rows:
        if "tokens_per_second" in row:
            begun = math.ceil(row["step"] / per_sampling) - math.ceil(step / per_sampling)
            samplings = max(1, begun)  # an epoch's last one may be for fewer steps
            parts = {name: row.get(f"time/{name}", 0.0) * samplings for name in ("sampling", "scoring")}
            if speed := row["tokens_per_second"]:
                training = (row["num_tokens"] - tokens) / speed - sum(parts.values())
            else:  # of groups that are all tied not a token is computed
                training = row.get("time/training", 0.0) * (row["step"] - step)
            found.update(parts | {"training": max(0.0, training)})
            step, tokens = row["step"], row["num_tokens"]
        found.update({"evaluation": math.fsum(value for name, value in row.items() if name.endswith("_runtime"))})
    return dict(found)


def _versions(run: RunRecord) -> dict[str, Any]:
    starts = [one.start for one in sessions(run.events)]
    said = dict(starts[-1].get("versions") or {}) if starts else {}
    here, git = run.environment, run.environment.get("git") or {}
    machine = [gpu.get("name") for gpu in here.get("gpus") or []] or (here.get("cpu") or {}).get("model")
    if git:
        said["git"] = f"{str(git.get('commit'))[:12]}{' and changes' if git.get('dirty') else ''}"
    return said | {"python": here.get("python"), "machine": machine, "processes": starts[-1].get("world_size") if starts else None}


def _data(said: Any) -> str:
    if not isinstance(said, Mapping):
        return str(said)
    size = next((f"{said[what]:,} {what}, " for what in ("examples", "prompts") if isinstance(said.get(what), int)), "")
    return f"{size}{str(said.get('fingerprint'))[:12]}"


# What it reached

Series = Mapping[str, Sequence[Value]]


def _series(rows: Sequence[Mapping[str, Any]]) -> Series:
    """Every metric in the order of its steps."""
    found: dict[str, list[Value]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float) and not ASIDE.fullmatch(name) and not name.endswith(STDERR):
                found.setdefault(name, []).append(Value(value=value, stderr=row.get(f"{name}{STDERR}"), step=row.get("step", 0)))
    return found


def _chosen(series: Sequence[Series], patterns: Sequence[str]) -> list[str]:
    every = sorted({name for one in series for name in one}, key=_place)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in every):
            near = nearest(pattern, every)
            raise RunError(f"No run has a metric {pattern!r}{f'; the nearest is {near!r}' if near else ', nor one that is like it'}.")
    if patterns:
        return [name for name in every if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return [name for name in every if all(name in one for one in series)]


def _place(name: str) -> tuple[int, str]:
    return next((i for i, first in enumerate(FIRST) if name.startswith(first)), len(FIRST)), name


def _better(name: str, series: Sequence[Series]) -> int:
    """1 where more is better, -1 where less is. The loss of a policy that learns from rewards says nothing."""
    if name == "loss" and any("reward" in one for one in series):
        return 0
    return 1 if MORE.fullmatch(name) else -1 if LESS.fullmatch(name) else 0


def _metric(name: str, columns: Sequence[Sequence[Value]], better: int) -> Metric:
    last = tuple(column[-1] if column else None for column in columns)
    finite = [[one for one in column if math.isfinite(one.value)] for column in columns]
    best = tuple(max(column, key=lambda one: better * one.value, default=None) if better else None for column in finite)
    return Metric(name=name, last=last, best=best, difference=(None, *_differences(last)))


def _differences(last: Sequence[Value | None]) -> Iterator[Difference | None]:
    for one in last[1:]:
        if last[0] is None or one is None:
            yield None
            continue
        errors = (last[0].stderr, one.stderr)
        known = [error for error in errors if error is not None]
        yield Difference(value=one.value - last[0].value, stderr=math.hypot(*known) if len(known) == len(errors) else None)
