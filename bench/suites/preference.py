"""DPO and KTO on pairs that share their prompt.

`as it comes`: TRL with the whole step as one batch and all else at its defaults (but float32 for bfloat16, as ours). `one pair at a time`
(of labelled rows two: it refuses one) pads little, and is without checkpointing; `smallest` is the same with it. All have sdpa attention;
eager was as fast, when it was tried. With the reference's log-probs ahead, what computing them costs is measured beside the steps. KTO's
losses are not compared: each library takes its reference point from other completions. The short form has DPO alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.harness import Case, Options, Side
from bench.processes import trl_python
from bench.rows import OFFLINE, WARM, texts, training
from bench.suites.sft import flop

TITLE = "A step of DPO and KTO"
Lengths = tuple[int, tuple[tuple[int, int], ...]]
FULL: Lengths = (256, ((20, 120), (110, 35), (50, 90), (75, 60)))
"""Tokens of a prompt; of the chosen and of the rejected, with the end token that is added."""
SHORT: Lengths = (128, ((16, 60), (55, 20)))
PAD = "<|endoftext|>"
SHOWN = ("cpu_s", "wall_s", "peak_bytes", "reference_cpu_s")
TITLES = {
    "dpo": "DPO",
    "dpo-ahead": "DPO, the reference's log-probs ahead",
    "kto": "KTO on labelled rows",
    "kto-pairs": "KTO on pairs, of which TRL is given the labelled rows",
}


def cases(options: Options) -> list[Case]:
    return [case(task, options) for task in (["dpo"] if options.short else TITLES)]


def lengths_of(options: Options) -> Lengths:
    return SHORT if options.short else FULL


def pairs(options: Options) -> list[dict[str, Any]]:
    """Those of the step to warm up, and those of the measured steps."""
    prompt, completions = lengths_of(options)
    wanted = [(WARM, WARM, WARM)] * len(completions) + [(prompt, *both) for both in completions] * options.steps
    found = iter(texts(options.model, [n for prompt, chosen, rejected in wanted for n in (prompt, chosen - 1, rejected - 1)]))
    return [{"prompt": next(found), "chosen": next(found), "rejected": next(found)} for _ in wanted]


def labelled(rows: list[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    """Two rows of each pair, step by step."""
    sides = (("chosen", True), ("rejected", False))
    steps = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    return [
        {"prompt": pair["prompt"], "completion": pair[side], "label": label} for step in steps for side, label in sides for pair in step
    ]


def about(options: Options, task: str) -> str:
    prompt, completions = lengths_of(options)
    named = ", ".join(f"{chosen} and {rejected}" for chosen, rejected in completions)
    said = f"{len(completions)} pairs: prompts of {prompt} tokens, completions of {named}."
    return said + (" Each completion is a row of its own, with its prompt." if task == "kto" else "")


def sides(task: str, rows: list[dict[str, Any]], batch: int, options: Options) -> list[Side]:
    """Of `batch` pairs a step, ours first."""
    method, more = task.split("-")[0], {"pad_token": PAD}
    ahead = {"precompute_ref_log_probs": True} if task == "dpo-ahead" else {}
    kto, python = method == "kto", trl_python(options.trl_python)
    both = labelled(rows, batch) if kto else rows  # of pairs TRL would make rows itself, all chosen ones before all rejected ones
    ours: dict[str, Any] = OFFLINE | ahead | {"batch_size": 2 * batch if task == "kto" else batch}
    in_parts = {"per_device_train_batch_size": 2 if kto else 1, "gradient_accumulation_steps": batch}
    their = {
        "TRL, as it comes": {"per_device_train_batch_size": 2 * batch if kto else batch},
        f"TRL, {'two rows' if kto else 'one pair'} at a time": in_parts | {"gradient_checkpointing": False},
        "TRL, smallest": in_parts | {"gradient_checkpointing": True},
    }
    if options.short and method == "reward":
        del their["TRL, smallest"]
    spec = training(both if task == "kto" else rows, ours, options, theirs=False, method=method, **more)
    found = [Side(name="ours", subject="training", spec=spec)]
    for name, own in their.items():
        spec = training(both, OFFLINE | ahead | own, options, theirs=True, method=method, **more)
        found.append(Side(name=name, subject="training", spec=spec, python=python))
    return found


def case(task: str, options: Options) -> Case:
    prompt, completions = lengths_of(options)
    rows, trained = pairs(options), sum(map(sum, completions))
    tokens = trained + prompt * len(completions) * (2 if task == "kto" else 1)
    reference = {} if task == "dpo-ahead" else {"read": tokens, "scored": trained}
    work = partial(flop, tokens=tokens, trained=trained, steps=options.steps, **reference)
    return Case(
        name=task,
        title=TITLES[task],
        about=about(options, task),
        sides=sides(task, rows, len(completions), options),
        same="" if task.startswith("kto") else "loss",
        shown=SHOWN if task == "dpo-ahead" else SHOWN[:3],
        work=None if task.startswith("kto") else work,  # KTO's reference point takes further passes
    )
