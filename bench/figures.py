"""The figures of a run's files as words: what the terminal and the page both show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.arithmetic import Spread

MEASURES = {
    # name: its heading, and what its numbers are divided by
    "cpu_s": ("CPU s", 1.0),
    "wall_s": ("wall s", 1.0),
    "peak_bytes": ("peak GB", 1e9),
    "cpu_s_per_1000": ("CPU s per 1,000 sampled tokens", 1.0),
    "wall_s_per_1000": ("wall s per 1,000 sampled tokens", 1.0),
    "cached_s": ("wall s from cache", 1.0),
    "reference_cpu_s": ("CPU s of the reference ahead", 1.0),
    "own_bytes": ("GB of its own", 1e9),
    "extra_bytes": ("MB", 1e6),
    "without_attention": ("CPU s per 1,000 tokens, attention taken out", 1.0),
    "with_attention": ("CPU s per 1,000 tokens", 1.0),
    "extra_completion": ("CPU s of one more completion", 1.0),
}
Record = dict[str, Any]


def read(folder: Path, suites: Sequence[str]) -> dict[str, Record]:
    """By suite, those that the folder has."""
    files = {suite: folder / f"{suite}.json" for suite in suites}
    return {suite: json.loads(file.read_text(encoding="utf-8")) for suite, file in files.items() if file.exists()}


def spread_of(record: Mapping[str, Any]) -> Spread:
    return Spread(**{name: record[name] for name in ("median", "low", "high", "count")})


def number(value: float) -> str:
    """Three digits, and all of those before the point."""
    if value == 0.0:
        return "0"
    before = math.floor(math.log10(float(f"{abs(value):.3g}"))) + 1
    return f"{value:,.{max(0, 3 - before)}f}"


def slope(value: float) -> str:
    """An exponent: its second digit is the last that means something."""
    return f"{value:.2f}"


def with_range(one: Spread, scale: float = 1.0, said: Callable[[float], str] = number) -> str:
    """The median, and in brackets the least and the greatest where they differ."""
    median, low, high = (said(value / scale) for value in (one.median, one.low, one.high))
    return f"{median} ({low}–{high})" if low != high else median


def figures(case: Mapping[str, Any]) -> Iterator[tuple[str, str, Spread]]:
    """(side or curve, measure or "× measure" for a ratio or "exponent of", spread) of one case, in the order of its columns."""
    found = case["summary"]
    for side, measures in found.get("sides", {}).items():
        for measure in case["shown"]:
            if measure in measures:
                yield side, measure, spread_of(measures[measure])
    for side, ratios in found.get("ratios", {}).items():
        for measure, ratio in ratios.items():
            yield f"{side} / {next(iter(case['sides']))}", f"× {measure}", spread_of(ratio)
    for measure, slope in found.get("exponents", {}).items():
        if slope is not None:
            yield case["title"], f"exponent of {measure}", spread_of(slope)


def run_line(record: Mapping[str, Any]) -> str:
    """By what command and when, and what else the machine did."""
    options = record["options"]
    threads = "one thread" if options["threads"] == 1 else f"{options['threads']} threads"
    load = f"load of the machine {record['load_before']:.1f} before and {record['load_after']:.1f} after"
    return f"`{record['command']}`, {record['date']}, commit {record['commit']}; {threads}, {options['compute_dtype']}; {load}"


def machine_line(record: Mapping[str, Any]) -> str:
    at = record["machine"]
    return f"{at['processor']}, {at['cores']} cores, {at['memory_bytes'] / 2**30:.0f} GiB, {at['system']}"


def version_lines(record: Mapping[str, Any]) -> list[str]:
    """Of each environment: packages and their versions."""
    every = {name: ", ".join(f"{package} {version}" for package, version in found.items()) for name, found in record["versions"].items()}
    return [f"in `{name}` {versions}" for name, versions in every.items()]
