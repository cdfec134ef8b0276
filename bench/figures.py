"""The figures of a run's files as words: what the terminal and the page both show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.numbers import Spread

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
    """Three digits that mean something."""
    if value == 0.0 or abs(value) >= 99.5:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.{digits}f}"


def with_range(one: Spread, scale: float = 1.0) -> str:
    """The median, and in brackets the least and the greatest where there are several."""
    said = number(one.median / scale)
    low, high = number(one.low / scale), number(one.high / scale)
    return f"{said} ({low}–{high})" if one.count > 1 and low != high else said


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


def machine_line(record: Mapping[str, Any]) -> str:
    """Where, when and by what command."""
    at, options = record["machine"], record["options"]
    threads = "one thread" if options["threads"] == 1 else f"{options['threads']} threads"
    machine = f"{at['processor']}, {at['cores']} cores, {at['memory_bytes'] / 2**30:.0f} GiB"
    load = f"load {record['load_before']:.1f} before and {record['load_after']:.1f} after"
    return f"`{record['command']}`, {record['date']}, commit {record['commit']}; {machine}; {threads}, {options['compute_dtype']}; {load}"


def version_line(record: Mapping[str, Any]) -> str:
    """Of each environment: packages and their versions."""
    every = [", ".join(f"{name} {said}" for name, said in found.items()) for found in record["versions"].values()]
    return "; ".join(dict.fromkeys(every))
