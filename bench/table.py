"""The figures of a run in the terminal, and beside them those of an earlier run: whether two runs say the same.

    python -m bench.table [runs/bench] [--beside bench/results]

Two figures agree where their ranges meet, each widened as far as so few values ask for (`arithmetic.within`); one that was measured once is
not judged. CPU and wall seconds change with the machine, and with what else it does; ratios, memory and exponents should not.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.arithmetic import Spread, within
from bench.figures import MEASURES, figures, number, read, run_line, slope, with_range
from bench.suites import NAMES

FORM = ("model", "short", "steps", "threads", "compute_dtype", "onednn")
"""Options that a figure depends on."""


def show(folder: Path, beside: Path | None, suites: Sequence[str]) -> None:
    """Prints every figure of `folder`; those of the same form in `beside`, and how many agree."""
    before = read(beside, suites) if beside else {}
    agreed: Counter[bool] = Counter()
    for suite, record in read(folder, suites).items():
        others = comparable(record, before.get(suite))
        print(f"\n{suite}: {run_line(record)}")
        for case in record["cases"]:
            print(f"  {case['title']}")
            for side, measure, one in figures(case):
                line = f"    {side:<34} {titled(measure):<58} {told(one, measure):<24}"
                if other := others.get((case["name"], side, measure)):
                    line += f" {told(other, measure):<24}"
                    if min(one.count, other.count) > 1:  # what was measured once has no range
                        same = within(one, other, exponents=measure.startswith("exponent"))
                        agreed[same] += 1
                        line += " the same" if same else " DIFFERS"
                print(line.rstrip())
            for product, share in case["summary"].get("share_of_peak", {}).items():
                print(f"    {'':<34} {f'of the float32 product ({product})':<58} {share['median']:.0%}")
    if agreed.total():
        print(f"\nbeside {beside}: {agreed[True]} figures the same, {agreed[False]} that differ")


def comparable(record: dict[str, Any], before: dict[str, Any] | None) -> dict[tuple[str, str, str], Spread]:
    """The figures of an earlier run, by case, side and measure; of another processor only those without seconds, of another form none."""
    if before is None or any(before["options"][name] != record["options"][name] for name in FORM):
        return {}
    every = {(case["name"], side, measure): one for case in before["cases"] for side, measure, one in figures(case)}
    here = before["machine"]["processor"] == record["machine"]["processor"]
    return {key: one for key, one in every.items() if here or key[2].startswith(("×", "exponent")) or key[2].endswith("_bytes")}


def titled(measure: str) -> str:
    kind = measure.split()[-1]
    return measure.replace(kind, MEASURES[kind][0])


def told(one: Spread, measure: str) -> str:
    """Ratios and exponents as they are."""
    return with_range(one, MEASURES[measure][1] if measure in MEASURES else 1.0, slope if measure.startswith("exponent") else number)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/bench"))
    parser.add_argument("--beside", type=Path)
    given = parser.parse_args()
    show(given.folder, given.beside, NAMES)


if __name__ == "__main__":
    main()
