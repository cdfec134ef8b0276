"""SFT on rows of very unequal length.

TRL runs as it comes (the step as one padded batch, its default gradient checkpointing on), and as its user would best run it on a CPU: one
row at a time with accumulation, which pads nothing. Of the settings that were tried ([Measured once](measured.md) has them all), eager
attention without checkpointing was the fastest, and sdpa with it the smallest.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bench.harness import Case, Options, Side
from bench.processes import trl_python
from bench.rows import OFFLINE, WARM, texts, training

TITLE = "An SFT step"
LENGTHS = (40, 48, 64, 96, 128, 190, 275, 500)
SHORT = (32, 48, 96, 336)


def cases(options: Options) -> list[Case]:
    lengths = SHORT if options.short else LENGTHS
    rows = [{"text": text} for text in texts(options.model, [n - 1 for n in (*[WARM] * len(lengths), *lengths * options.steps)])]
    one_by_one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": len(lengths)}
    whole = {"per_device_train_batch_size": len(lengths), "gradient_checkpointing": True}
    their = {
        "TRL, as it comes": (whole, "sdpa"),
        "TRL, fastest": (one_by_one | {"gradient_checkpointing": False}, "eager"),
        "TRL, smallest": (one_by_one | {"gradient_checkpointing": True}, "sdpa"),
    }
    ours = training(rows, OFFLINE | {"batch_size": len(lengths)}, options, theirs=False, method="sft")
    sides = [Side(name="ours", subject="training", spec=ours)]
    for name, (own, attention) in their.items():
        spec = training(rows, OFFLINE | own, options, theirs=True, method="sft", attention=attention)
        sides.append(Side(name=name, subject="training", spec=spec, python=trl_python(options.trl_python)))
    named = ", ".join(map(str, lengths))
    about = f"Rows of {named} tokens ({sum(lengths):,} in all; padded, {max(lengths) * len(lengths):,}), every token trained."
    work = partial(flop, tokens=sum(lengths), trained=sum(lengths) - len(lengths), steps=options.steps)
    return [Case(name="sft", title="SFT", about=about, sides=sides, shown=("cpu_s", "wall_s", "peak_bytes"), work=work, same="loss")]


def flop(facts: Mapping[str, Any], *, tokens: int, trained: int, steps: int, read: int = 0, scored: int = 0) -> list[float]:
    """Multiplications and additions of each step's matrix products, attention and recomputation aside.

    A weight costs 2 for a token forward and 4 backward. `tokens` pass the layers and `trained` ones the head both ways; `read` and `scored`
    ones pass them forward only, as those of a reference do.
    """
    layers, head = facts["layer_parameters"], facts["head_parameters"]
    return [6.0 * (layers * tokens + head * trained) + 2.0 * (layers * read + head * scored)] * steps
