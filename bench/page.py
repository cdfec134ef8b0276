"""docs/benchmarks.md, its drawings and the table in README.md, made of the files in bench/results.

python -m bench.page                     compares; exits with 1 where one of them is not what the files give
python -m bench.page --record            writes them anew
python -m bench.page --take runs/bench   likewise, after the files of a run have become bench/results
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import MEASURES, machine_line, number, read, run_line, slope, spread_of, version_lines, with_range
from bench.plots import drawn
from bench.processes import ROOT
from bench.suites import NAMES, suite

PAGE, README, CURVES = "docs/benchmarks.md", "README.md", "docs/curves"
MARKED = re.compile(r"(?<=<!-- measured: make bench-page -->\n).*?(?=<!-- end of measured -->)", re.DOTALL)
HEAD = """# Benchmarks

This page is made by `make bench-page` of the files in `bench/results`; nothing in it is typed. `make bench` measures anew, in its short
form, in less than 20 minutes on two cores, and says which figures are the same. What takes longer, and was measured once, is in
[Measured once](measured.md).

Sides take turns, ours, theirs, ours, …, each in a process of its own and in its library's own environment. CPU seconds (user and system,
of all threads), wall seconds and the most memory that was ever resident are the operating system's counts. A figure is the median, with
the least and the greatest in brackets; **×** is theirs divided by ours, the median of the ratios of neighbouring turns, so that above 1
ours takes less. Steps are measured after one to warm up, which has short rows of its own (that of GRPO has the same prompts). Where several
processes work, memory is that of the first one; of a command it is that of the largest.
"""
Record = dict[str, Any]


def page(results: Mapping[str, Record]) -> str:
    sections = [growth_section(record) if name == "growth" else section(name, record) for name, record in results.items()]
    return "\n".join([HEAD, *places(results), "", *sections]).rstrip() + "\n"


def places(results: Mapping[str, Record]) -> list[str]:
    """Each machine, and each environment there, once."""
    machines: dict[str, dict[str, None]] = {}
    for record in results.values():
        machines.setdefault(machine_line(record), {}).update(dict.fromkeys(version_lines(record)))
    return [f"- {machine}: {'; '.join(versions)}." for machine, versions in machines.items()]


def opening(name: str, record: Record) -> str:
    """Heading, what the suite does, and by which command, where and when it was done."""
    module = suite(name)
    return f"## {module.TITLE}\n\n{inspect.getdoc(module)}\n\nMeasured by {run_line(record)}.\n"


def section(name: str, record: Record) -> str:
    cases = [case for case in record["cases"] if case["summary"]]
    columns = list(dict.fromkeys(measure for case in cases for measure in case["shown"]))
    lines = [opening(name, record), *(f"- **{case['title']}**: {case['about']}" for case in cases if case["about"]), ""]
    lines += [f"| | {' | '.join(MEASURES[measure][0] for measure in columns)} | turns |", f"|---|{'---|' * (len(columns) + 1)}"]
    for case in cases:
        for side in case["sides"]:
            told = f"{case['title']}: {side}" if len(cases) > 1 else side
            cells = [cell(case, side, measure) for measure in columns]
            lines.append(f"| {told} | {' | '.join(cells)} | {len(case['sides'][side]['turns'])} |")
    return "\n".join([*lines, "", *remarks(cases)])


def cell(case: Mapping[str, Any], side: str, measure: str) -> str:
    """Of the first side the figure with its range; of the others the median, and the ratio with its range."""
    measures, ratios = case["summary"]["sides"].get(side, {}), case["summary"]["ratios"].get(side)
    if measure not in measures:
        return "failed" if "failed" in case["sides"][side] else "–"
    value, scale = spread_of(measures[measure]), MEASURES[measure][1]
    if ratios is None:
        return with_range(value, scale)
    ratio = f", **× {with_range(spread_of(ratios[measure]))}**" if measure in ratios else ""
    return number(value.median / scale) + ratio


def remarks(cases: list[Mapping[str, Any]]) -> Iterator[str]:
    """What the tables do not say: that the sides did the same, and how much of the machine's peak ours reaches."""
    names = {
        "loss": "losses of the first measured step",
        "signature": "token ids, and which of them are trained,",
    }
    for case in cases:
        found, title = case["summary"], case["title"]
        if "difference" in found:
            apart = f"differ by {found['difference']:.0e} at most" if found["difference"] else "are the same"
            yield f"{title}: the {names[case['same']]} of all sides {apart}.\n"
        if found["share_of_peak"]:
            products = {"default": "as PyTorch multiplies unless told otherwise", "onednn": "through oneDNN"}
            shares = [f"{share['median']:.0%} of it {products[product]}" for product, share in found["share_of_peak"].items()]
            told = "ours against this machine's own float32 product of large matrices, measured in the same run"
            yield f"{title}: {told}: {', '.join(shares)}.\n"


def growth_section(record: Record) -> str:
    notes = [f"- **{case['title']}**: {case['about']}" for case in record["cases"]]
    head = ("what grows", "cost", "from", "to", "cost there", "largest / smallest", "exponent", "expected")
    rows = [growth_row(case, measure) for case in record["cases"] for measure in case["growth"]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
    pictures = [f"![{MEASURES[measure][0]} by {case['axis']}](curves/{name}.svg)" for name, case, measure in curves(record)]
    return "\n\n".join([opening("growth", record) + "\n" + "\n".join(notes), table, *pictures, ""])


def growth_row(case: Mapping[str, Any], measure: str) -> tuple[str, ...]:
    (heading, scale), expected = MEASURES[measure], f"{case['growth'][measure]:g}"
    points, found = points_of(case, measure), case["summary"].get("exponents", {}).get(measure)
    if not points:
        return (case["axis"], heading, *["failed"] * 5, expected)
    sizes = [f"{points[i]['x']:,.0f}" for i in (0, -1)]
    costs = " to ".join(number(points[i]["median"] / scale) for i in (0, -1))
    middles = [point["median"] for point in points]
    exponent = with_range(spread_of(found), said=slope) if found else "–"
    return (case["axis"], heading, *sizes, costs, f"{max(middles) / min(middles):.2f}", exponent, expected)


def points_of(case: Mapping[str, Any], measure: str) -> list[dict[str, float]]:
    return case["summary"].get("points", {}).get(measure, [])


def curves(record: Record) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(name of its drawing, case, measure) of every curve that has two points."""
    for case in record["cases"]:
        for measure in case["growth"]:
            if len(points_of(case, measure)) > 1:
                yield f"growth_{case['name']}_{measure}".replace("-", "_"), case, measure


def drawing(case: Mapping[str, Any], measure: str) -> str:
    heading, scale = MEASURES[measure]
    return drawn(points_of(case, measure), case["growth"][measure], case["axis"], heading, scale)


def table(results: Mapping[str, Record]) -> str:
    """The README's: how many times as much theirs takes."""
    lines = ["| theirs / ours | CPU time | memory |", "|---|---|---|"]
    for record in results.values():
        for case in record["cases"]:
            for side, ratios in case["summary"].get("ratios", {}).items():
                cpu = next((ratios[measure] for measure in ("cpu_s_per_1000", "cpu_s") if measure in ratios), None)
                cells = [with_range(spread_of(ratio)) + "×" if ratio else "–" for ratio in (cpu, ratios.get("peak_bytes"))]
                lines.append(f"| {case['title']}: {side} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def wanted(root: Path, results: Mapping[str, Record]) -> dict[str, str]:
    """File → what it should hold; nothing, where it should not be. Raises SystemExit where README.md has lost its marks."""
    readme = (root / README).read_text(encoding="utf-8")
    if MARKED.search(readme) is None:
        raise SystemExit(f"{README}: has no lines <!-- measured: make bench-page --> and <!-- end of measured --> any more; put them back.")
    made = MARKED.sub(lambda _: table(results), readme)
    drawings = (
        {f"{CURVES}/{name}.svg": drawing(case, measure) for name, case, measure in curves(results["growth"])} if "growth" in results else {}
    )
    left_over = {f"{CURVES}/{file.name}": "" for file in (root / CURVES).glob("growth_*.svg")}
    return left_over | {PAGE: page(results), README: made, **drawings}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--take", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args(arguments)
    folder = given.root / "bench/results"
    if given.take:
        taken = [file for name in NAMES if (file := given.take / f"{name}.json").exists()]
        if not taken:
            raise SystemExit(f"--take {given.take}: holds none of {', '.join(f'{name}.json' for name in NAMES)}; run `make bench` first.")
        for file in taken:
            shutil.copy(file, folder)
    stale = 0
    for name, text in wanted(given.root, read(folder, NAMES)).items():
        file = given.root / name
        if text == (file.read_text(encoding="utf-8") if file.exists() else ""):
            continue
        if not (given.record or given.take):
            print(f"{name}: is not what bench/results gives; run `make bench-page` and commit it.")
            stale += 1
        elif text:
            file.write_text(text, encoding="utf-8")
        else:
            file.unlink()
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
