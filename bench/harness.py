"""Ours and a peer take turns, each in a process of its own; what the operating system says of them is recorded.

A case is one comparison: its sides run one after another (ours, theirs, …), and again in the next round. Theirs is divided by ours
round by round, since what is measured minutes apart on a shared machine cannot be divided; of these ratios the median and the range are
kept. In a growth case the sides are points of one curve, and the exponent is found round by round in the same way.

Rounds are the outer loop and cases the inner one, so that a case's rounds lie far apart, and time that runs out costs every case a
round and none its whole measurement. Files are written after every round of a case.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine
from bench.arithmetic import Spread, exponent, paired_ratios, spread
from bench.processes import Taken, TurnError, ask, timed

MATMUL = {"sides": [2048], "repeats": 2}
"""Large enough for the machine's peak, and over in a second or two: it is measured beside every turn that is compared with it."""
SAME = {"float32": 5e-5, "bfloat16": 1e-2}
"""How far apart numbers may be that should be the same. Losses after one update, in float32, were 8e-8 (SFT), 3e-6 (reward) and 5e-6 (DPO)
apart; a hundredth more of a learning rate would move DPO's by 7e-5. In bfloat16 none was measured, and a DPO loss says little there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user of `python -m bench` may choose."""

    model: Path
    trl_python: Path
    vllm_python: Path
    short: bool
    rounds: int
    steps: int
    threads: int
    minutes: float | None
    compute_dtype: str
    onednn: bool
    output: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One that takes turns: a subject with its specification, or a plain command."""

    name: str
    subject: str = ""
    """A module of `bench.subjects`."""
    spec: dict[str, Any] = field(default_factory=dict)
    python: Path | None = None
    """The interpreter of its environment; None: this one."""
    command: tuple[str, ...] = ()
    status: int = 0
    """That a command ends with."""
    repeats: int = 1
    """Of a command in one turn, whose median counts. Before its first turn it runs once, and that is not measured."""
    x: tuple[float, ...] = ()
    """In a growth case: what each value of a measure was measured at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    title: str
    about: str
    """What is done, in a sentence or two, for the page."""
    sides: Sequence[Side]
    """The others are divided by the first."""
    shown: Sequence[str]
    """Measures in the order of the page's columns."""
    work: Callable[[Mapping[str, Any]], list[float]] | None = None
    """The first side's facts → multiplications and additions of each measured step, for its share of the machine's peak."""
    same: str = ""
    """A fact that is the same on all sides, a number to its rounding: the proof that they did the same."""
    growth: Mapping[str, float] = field(default_factory=dict)
    """Measure → the exponent that is expected of it."""
    axis: str = ""
    """What grows."""
    rounds: int | None = None
    """At most so many, where one is dear."""


class Bench:
    """One run of the harness over suites; see the module's docstring."""

    def __init__(self, suites: Mapping[str, Sequence[Case]], options: Options) -> None:
        self.suites, self.options = suites, options
        self.began = time.monotonic()
        self.failed: list[str] = []
        self._lasted: dict[str, float] = {}
        self._records = {suite: self._head(suite, cases) for suite, cases in suites.items()}

    def run(self) -> None:
        """Every round of every case, as far as the minutes reach."""
        for number in range(1, self.options.rounds + 1):
            for suite, cases in self.suites.items():
                for case in cases:
                    if number > (case.rounds or number) or not self._fits(case):
                        continue
                    began = time.monotonic()
                    self._round(suite, case, number)
                    self._lasted[case.name] = time.monotonic() - began
                    self._write(suite)

    def _head(self, suite: str, cases: Sequence[Case]) -> dict[str, Any]:
        pythons = dict.fromkeys(interpreter(side) for case in cases for side in case.sides)
        versions = {python: self._asked(suite, "versions", {}, python).get("facts", {}) for python in pythons}
        options = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.options).items()}
        return {
            "suite": suite,
            "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
            "date": machine.now(),
            "commit": machine.commit(),
            "machine": machine.machine(),
            "load_before": machine.load(),
            "load_after": machine.load(),
            "options": options,
            "versions": {path.parts[-3] if len(path.parts) > 2 else str(path): found for path, found in versions.items()},
            "cases": [head_of(case) for case in cases],
        }

    def _asked(self, suite: str, subject: str, spec: dict[str, Any], python: Path | None = None) -> dict[str, Any]:
        """Of what is no side's turn: the answer; nothing, where the process failed, which is told in the end."""
        try:
            (answer,), _ = ask(subject, [spec], python=python, threads=self.options.threads)
        except TurnError as error:
            self.failed.append(f"{suite}: {subject}: {error}")
            return {}
        return dict(answer)

    def _peak(self, suite: str) -> dict[str, float]:
        """The machine's own float32 products now."""
        answer = self._asked(suite, "matmul", MATMUL | {"threads": self.options.threads})
        return {product: found[0] for product, found in answer.get("measures", {}).items()}

    def _fits(self, case: Case) -> bool:
        """A case's first round always does; a later one where as much time is left as the last took."""
        left = float("inf") if self.options.minutes is None else 60 * self.options.minutes - (time.monotonic() - self.began)
        return self._lasted.get(case.name, 0.0) < left

    def _round(self, suite: str, case: Case, number: int) -> None:
        record = next(one for one in self._records[suite]["cases"] if one["name"] == case.name)
        for side in case.sides:
            into = record["sides"][side.name]
            try:
                turn = take_turn(side, self.options.threads, warm_up=number == 1) | {"round": number}
                if case.growth:
                    check_costs({name: turn["measures"].get(name, []) for name in case.growth})
            except TurnError as error:
                into["failed"] = str(error)
                self.failed.append(f"{suite}: {case.name}: {side.name}: {error}")
                print(f"{suite:<11}{case.name:<16}{side.name:<30} FAILED\n{error}", flush=True)
                continue
            if case.work is not None and side is case.sides[0]:
                turn["measures"]["flop"] = case.work(turn["facts"])
                turn["facts"]["matmul_flops"] = self._peak(suite)
            into["turns"].append(turn)
            shown = "  ".join(f"{name} {', '.join(f'{value:.4g}' for value in turn['measures'].get(name, []))}" for name in case.shown)
            print(f"{suite:<11}{case.name:<16}{side.name:<30} round {number}  {shown}", flush=True)

    def _write(self, suite: str) -> None:
        record = self._records[suite]
        record["load_after"] = machine.load()
        for case in record["cases"]:
            case["summary"] = summary(case, self.options.threads)
            if not case["summary"].get("difference", 0.0) <= SAME[self.options.compute_dtype]:
                self.failed.append(f"{suite}: {case['name']}: the sides differ in {case['same']}, by {case['summary']['difference']:.1e}")
        self.options.output.mkdir(parents=True, exist_ok=True)
        file = self.options.output / f"{suite}.json"
        beside = file.with_suffix(".tmp")
        beside.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(beside, file)  # so that whoever ends the bench finds the last whole file


def interpreter(side: Side) -> Path:
    return side.python or Path(side.command[0] if side.command else sys.executable)


def head_of(case: Case) -> dict[str, Any]:
    """What is known of a case before its first turn. Rows and folders are left out of specifications: the command makes them again."""
    sides = {}
    for side in case.sides:
        said = {name: value for name, value in side.spec.items() if name not in ("rows", "prompts")}
        subject = side.subject or shlex.join(["python", *side.command[1:]])
        sides[side.name] = {"subject": subject, "spec": said, "x": list(side.x), "turns": []}
    told = {"name": case.name, "title": case.title, "about": case.about, "shown": list(case.shown), "same": case.same}
    return told | {"growth": dict(case.growth), "axis": case.axis, "sides": sides, "summary": {}}


def take_turn(side: Side, threads: int, *, warm_up: bool = False) -> dict[str, Any]:
    """What one turn measured: what its subject says, or of a command what the operating system says; both are kept.

    With `warm_up` a command runs once before, so that no side is measured with its files not yet in memory.

    Raises:
        TurnError: a process ended as it should not have.
    """
    if side.subject:
        (answer,), taken = ask(side.subject, [side.spec], python=side.python, threads=threads)
        return {"measures": answer["measures"], "facts": answer["facts"], "process": asdict(taken)}
    if warm_up:
        timed(side.command, threads, status=side.status)
    every: list[Taken] = [timed(side.command, threads, status=side.status)[0] for _ in range(side.repeats)]
    measures = {name: [median(asdict(taken)[name] for taken in every)] for name in ("cpu_s", "wall_s", "peak_bytes")}
    return {"measures": measures, "facts": {}, "process": asdict(every[-1])}


def check_costs(measures: Mapping[str, Sequence[float]]) -> None:
    """Raises TurnError where a cost is not above 0: it has no logarithm, and a curve no exponent."""
    for name, values in measures.items():
        if not all(value > 0.0 for value in values):
            said = ", ".join(f"{value:.4g}" for value in values)
            raise TurnError(f"{name} is {said}: a cost of 0 or less was lost in noise; measure again on a quiet machine.")


def summary(case: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """The figures of a case's record: spreads of each side's measures, ratios to the first side, exponents, shares of the peak."""
    turns = {name: side["turns"] for name, side in case["sides"].items()}
    found: dict[str, Any] = {"sides": {}, "ratios": {}, "exponents": {}, "points": {}, "share_of_peak": {}}
    if case["growth"]:
        for measure in case["growth"]:
            found["points"][measure], found["exponents"][measure] = curve(case["sides"], measure)
        return found
    for name, taken in turns.items():
        found["sides"][name] = {measure: asdict(spread(_flat(taken, measure))) for measure in (taken[0]["measures"] if taken else ())}
    first, *others = turns
    for name in others:
        ratios = {measure: ratio for measure in case["shown"] if (ratio := ratio_of(turns[name], turns[first], measure))}
        found["ratios"][name] = {measure: asdict(ratio) for measure, ratio in ratios.items()}
    if case["same"] and all(turns.values()):
        found["difference"] = difference([turn["facts"][case["same"]] for taken in turns.values() for turn in taken])
    worked = [turn for turn in turns[first] if "flop" in turn["measures"]]
    shares: dict[str, list[float]] = {}
    for turn in worked:
        for product, peak in turn["facts"]["matmul_flops"].items():
            for flop, cpu in zip(turn["measures"]["flop"], turn["measures"]["cpu_s"], strict=True):
                shares.setdefault(product, []).append(flop * threads / cpu / peak)
    found["share_of_peak"] = {product: asdict(spread(values)) for product, values in shares.items()}
    return found


def difference(facts: Sequence[Any]) -> float:
    """The largest relative difference of numbers, infinite where one is none; of other things 0 where all are the same, else 1."""
    if facts and all(isinstance(one, float) for one in facts):
        if not all(map(math.isfinite, facts)):
            return math.inf
        return (max(facts) - min(facts)) / (max(map(abs, facts)) or 1.0)
    return float(len(set(facts)) > 1)


def ratio_of(theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], measure: str) -> Spread | None:
    """Of the rounds that both have; None where one of them lacks the measure."""
    pairs = [(t["measures"], o["measures"]) for t in theirs for o in ours if t["round"] == o["round"]]
    both = [(t[measure], o[measure]) for t, o in pairs if measure in t and measure in o]
    return spread(paired_ratios([t for t, _ in both], [o for _, o in both])) if both else None


def curve(sides: Mapping[str, Any], measure: str) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """(points by what grows, spread of the exponent over rounds); a round counts for the exponent where it has two points."""
    by_round: dict[int, list[tuple[float, float]]] = {}
    for side in sides.values():
        for turn in side["turns"]:
            if measure in turn["measures"]:
                by_round.setdefault(turn["round"], []).extend(zip(side["x"], turn["measures"][measure], strict=True))
    at: dict[float, list[float]] = {}
    for points in by_round.values():
        for x, y in points:
            at.setdefault(x, []).append(y)
    slopes = [exponent(*zip(*points, strict=True)) for points in by_round.values() if len(points) > 1]
    return [{"x": x, **asdict(spread(ys))} for x, ys in sorted(at.items())], asdict(spread(slopes)) if slopes else None


def _flat(turns: Sequence[Mapping[str, Any]], measure: str) -> list[float]:
    return [value for turn in turns for value in turn["measures"][measure]]
