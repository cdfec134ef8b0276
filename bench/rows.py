"""Rows of wanted lengths, and what both sides of a training are told alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import Options

COMMON = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}
OFFLINE = {"max_length": None, "train_sampling_strategy": "sequential"}
THEIR_COMMON = {"use_cpu": True, "disable_tqdm": True}
WARM = 16
"""Tokens of a row of the step before the measured ones, which makes gradients and the optimizer's state."""


def texts(model: Path, lengths: Sequence[int]) -> list[str]:
    """One text of each length in tokens: words that are one token each, each with a space before it, drawn with a seed.

    Raises:
        SystemExit: the model's tokenizer cuts them otherwise.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    words = sorted(token[1:] for token in tokenizer.get_vocab() if token[0] == "Ġ" and len(token) > 3 and token[1:].isascii())
    words = [word for word in words if word.islower() and word.isalpha()]
    draw = random.Random(0)
    found = [" " + " ".join(draw.choices(words, k=n)) for n in lengths]
    made = [len(ids) for ids in tokenizer(found, add_special_tokens=False).input_ids]
    if made != list(lengths):
        raise SystemExit(f"The texts have {made} tokens and not {list(lengths)}: {model} has another tokenizer than SmolLM2's.")
    return found


def training(
    rows: list[dict[str, Any]], own: dict[str, Any], options: Options, *, theirs: bool, method: str, **more: Any
) -> dict[str, Any]:
    """The specification of one side of a training (see `subjects/training.py`); `own` are its options."""
    dtype = {"bf16": options.compute_dtype == "bfloat16"} if theirs else {"compute_dtype": options.compute_dtype}
    common = COMMON | dtype | (THEIR_COMMON if theirs else {}) | {"max_steps": 1 + options.steps}
    return {
        "library": "trl" if theirs else "burnish",
        "method": method,
        "model": str(options.model),
        "rows": rows,
        "warm_up_steps": 1,
        "threads": options.threads,
        "fp32_precision": "bf16" if options.onednn else None,
        "options": common | own,
        **more,
    }
