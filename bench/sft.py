"""SFT of SmolLM2 on rows of very unequal length, side by side with TRL 1.16 in one run: `make bench-sft`.

    python bench/sft.py --trl-python .venv-trl/bin/python

How it is measured: `side_by_side.py`. What is compared is the median, over rounds, of theirs divided by ours.

TRL runs as its user would best run it on a CPU. `THEIRS` holds the settings that were fastest and smallest of those tried
(docs/benchmarks.md has them all); `--all` measures what comes without choosing, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from side_by_side import Turns, describe, parser, processor, ratios_of, show_ratios, specification, texts, turn, write

LENGTHS = (40, 48, 64, 96, 128, 190, 275, 500)
ONE_BY_ONE = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": len(LENGTHS)}
THEIRS: dict[str, dict[str, Any]] = {
    "TRL, fastest": {"options": {**ONE_BY_ONE, "gradient_checkpointing": False}, "attention": "eager"},
    "TRL, smallest": {"options": {**ONE_BY_ONE, "gradient_checkpointing": True}, "attention": "sdpa"},
}
UNCHOSEN: dict[str, dict[str, Any]] = {
    "TRL, one padded batch": {
        "options": {"per_device_train_batch_size": len(LENGTHS), "gradient_checkpointing": True},
        "attention": "sdpa",
    },
}
PRODUCTS = {"default": "multiplies unless told otherwise", "onednn": "multiplies through oneDNN"}
OURS: dict[str, Any] = {"options": {"batch_size": len(LENGTHS)}}


def main() -> None:
    found = parser(__doc__, "runs/bench-sft.json")
    found.add_argument("--all", action="store_true", help="measure also the settings of TRL that come without choosing")
    options = found.parse_args()
    sides = {"ours": OURS} | THEIRS | (UNCHOSEN if options.all else {})
    rows = [{"text": text} for text in texts(options.model, [n - 1 for n in LENGTHS])]  # the end token is added
    turns: Turns = {name: [] for name in sides}
    peaks = []
    for number in range(1, options.rounds + 1):
        peaks.append(matmul_peak(options.threads))
        for name, own in sides.items():
            turns[name].append(turn(f"round {number}  {name}", specification(rows, own, options, theirs=name != "ours"), options))
    report(turns, peaks, options)


def matmul_peak(threads: int) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).with_name("matmul_peak.py")), str(threads)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def report(turns: Turns, peaks: list[dict[str, float]], options: argparse.Namespace) -> None:
    ours, parameters, tokens = turns["ours"], turns["ours"][0]["parameters"], sum(LENGTHS)
    reached = median(6 * parameters * tokens * options.threads / cpu for one in ours for cpu in one["cpu_s"])
    peak = {product: max(found[product] for found in peaks) for product in peaks[0]}
    shares = {product: reached / value for product, value in peak.items()}
    print(f"\n{len(LENGTHS)} rows of {LENGTHS[0]} to {LENGTHS[-1]} tokens, {tokens:,} in all; {parameters:,} parameters")
    print(f"{options.compute_dtype}, {options.threads} thread(s), {processor()}; {options.rounds} rounds of {options.steps} steps")
    for name, results in turns.items():
        print(describe(name, results))
    show_ratios(ratios := ratios_of(turns, "ours"), "ours")
    print(f"ours computes {reached / 1e9:.0f} GFLOP in a second of all its threads (6 x parameters x tokens); float32 products reach:")
    for product, value in peak.items():
        print(f"  {value / 1e9:.0f} as PyTorch {PRODUCTS[product]}: ours is at {shares[product]:.0%} of it")
    write({"lengths": LENGTHS, "turns": turns, "ratios": ratios, "matmul_peaks": peaks, "share_of_peak": shares}, options)


if __name__ == "__main__":
    main()
