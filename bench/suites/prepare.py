"""Preparing chat rows beside TRL's SFTTrainer: from the same file, with the same tokenizer, to the same tokens.

Conversations of 3 to 6 turns of 5 to 60 words. Every turn begins with an empty cache and prepares a second time from the cache it filled.
TRL runs with `dataset_num_proc` None and with as many processes as there are cores; ours decides by itself. With `assistant_only_loss` both
are given a template with the marks that TRL needs; the short form trains every token, with the tokenizer's own template. Processor seconds
are of all processes; the peak is of the first one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.harness import Case, Options, Side
from bench.machine import cores
from bench.processes import trl_python
from bench.subjects.preparation import write_rows

TITLE = "Preparing chat rows"


def cases(options: Options) -> list[Case]:
    count = 5_000 if options.short else 20_000
    rows = Path(tempfile.mkdtemp(prefix="bench-rows-"), "train.jsonl")
    write_rows(rows, count)
    return [case(options, rows, count, answers_only) for answers_only in ((False,) if options.short else (False, True))]


def case(options: Options, rows: Path, count: int, answers_only: bool) -> Case:
    common = {"tokenizer": str(options.model), "assistant_only_loss": answers_only, "rows": str(rows)}
    sides = [Side(name="ours", subject="preparation", spec=common | {"library": "burnish", "num_proc": None})]
    many = len(cores())
    for processes in (None, many) if many > 1 else (None,):
        name = f"TRL, dataset_num_proc={many}" if processes else "TRL, as it comes"
        spec = common | {"library": "trl", "num_proc": processes}
        sides.append(Side(name=name, subject="preparation", spec=spec, python=trl_python(options.trl_python)))
    trained = "the assistant's tokens trained" if answers_only else "every token trained"
    return Case(
        name="prepare-answers" if answers_only else "prepare",
        title=f"preparing {count:,} chat rows" + (", the assistant's tokens trained" if answers_only else ""),
        about=f"{count:,} conversations, {trained}.",
        sides=sides,
        same="signature",
        shown=("cpu_s", "wall_s", "cached_s", "peak_bytes"),
    )
