"""DPO, KTO and a reward model of SmolLM2, side by side with TRL 1.16 in one run: `make bench-preference`.

    python bench/preference.py --trl-python .venv-trl/bin/python

Four pairs whose prompts have 256 words, each one token, and whose completions have 20 to 120 tokens. How it is measured:
`side_by_side.py`. What is compared is the median, over rounds, of theirs divided by ours.

`as it comes`: TRL with the whole step as one batch and all else at its defaults (but float32 for bfloat16, as ours). `best`: TRL as its
user would best run it on a CPU, the fastest of the settings in docs/benchmarks.md. Its log-probs of the reference ahead are computed
before the steps that are measured, and so are ours; what that costs is shown beside.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import Turns, describe, parser, processor, ratios_of, show_ratios, specification, texts, turn, write

PROMPT = 256
COMPLETIONS = ((20, 120), (110, 35), (50, 90), (75, 60))
"""Tokens of the chosen and of the rejected, with the end token that is added."""
PAIRS = len(COMPLETIONS)
FAST, SMALL = {"gradient_checkpointing": False}, {"gradient_checkpointing": True}


def theirs(rows: int, accumulate: int = 1, *, attention: str = "sdpa", **options: Any) -> dict[str, Any]:
    batch = {"per_device_train_batch_size": rows // accumulate, "gradient_accumulation_steps": accumulate}
    return {"options": batch | options, "attention": attention}


def sides(task: str) -> dict[str, dict[str, Any]]:
    """By name: ours first."""
    one_by_one = {
        f"TRL, one pair at a time, {attention}, {how}": theirs(PAIRS, PAIRS, attention=attention, **options)
        for attention in ("sdpa", "eager")
        for how, options in (("no checkpointing", FAST), ("checkpointing", SMALL))
    }
    if task in ("dpo", "reward"):
        return {"ours": {"options": {"batch_size": PAIRS}}, "TRL, as it comes": theirs(PAIRS)} | one_by_one
    if task == "dpo-ahead":
        ahead = {"precompute_ref_log_probs": True}
        ours = {"options": {"batch_size": PAIRS, "dataset_cache_dir": tempfile.mkdtemp(prefix="bench-dpo-")} | ahead}
        found = {"ours": ours, "TRL, as it comes": theirs(PAIRS)} | one_by_one
        return {name: own | {"options": own["options"] | ahead} for name, own in found.items()}
    rows = 2 * PAIRS  # TRL refuses to take labelled rows one at a time
    two_by_two = {
        f"TRL, two rows at a time, {attention}, {how}": theirs(rows, PAIRS, attention=attention, **options)
        for attention in ("sdpa", "eager")
        for how, options in (("no checkpointing", FAST), ("checkpointing", SMALL))
    }
    ours = {"options": {"batch_size": PAIRS if task == "kto-pairs" else rows}}
    return {"ours": ours, "TRL, as it comes": theirs(rows)} | two_by_two


BEST = {
    "dpo": "TRL, one pair at a time, sdpa, no checkpointing",
    "dpo-ahead": "TRL, one pair at a time, sdpa, no checkpointing",
    "kto": "TRL, two rows at a time, sdpa, no checkpointing",
    "kto-pairs": "TRL, two rows at a time, sdpa, no checkpointing",
    "reward": "TRL, one pair at a time, sdpa, no checkpointing",
}


def rows_of(task: str, model: Path) -> list[dict[str, Any]]:
    found = iter(texts(model, [n for chosen, rejected in COMPLETIONS for n in (PROMPT, chosen - 1, rejected - 1)]))
    pairs = [{"prompt": next(found), "chosen": next(found), "rejected": next(found)} for _ in COMPLETIONS]
    if task != "kto":
        return pairs
    sides = (("chosen", True), ("rejected", False))
    return [{"prompt": pair["prompt"], "completion": pair[side], "label": label} for side, label in sides for pair in pairs]


def main() -> None:
    found = parser(__doc__, "runs/bench-preference.json")
    found.add_argument("--task", choices=list(BEST), action="append", help="only this; may be given again")
    found.add_argument("--all", action="store_true", help="measure every setting of TRL, and not its best alone")
    options = found.parse_args()
    print(f"{options.compute_dtype}, {options.threads} thread(s), {processor()}; {options.rounds} rounds of {options.steps} steps")
    record = {task: measured(task, options) for task in options.task or BEST}
    write({"prompt": PROMPT, "completions": COMPLETIONS, "tasks": record}, options)


def measured(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one task, in turn."""
    rows, method = rows_of(task, options.model), task.split("-")[0]
    compared = {name: own for name, own in sides(task).items() if options.all or name in ("ours", "TRL, as it comes", BEST[task])}
    turns: Turns = {name: [] for name in compared}
    print(f"\n{task}", flush=True)
    for _ in range(options.rounds):
        for name, own in compared.items():
            spec = specification(rows, own, options, theirs=name != "ours", method=method)
            turns[name].append(turn(name, spec | {"pad_token": "<|endoftext|>"}, options))
    if options.rounds > 1:
        print("\n".join(describe(name, results) for name, results in turns.items()))
    show_ratios(ratios := ratios_of(turns, "ours"), "ours")
    return {"turns": turns, "ratios": ratios}


if __name__ == "__main__":
    main()
