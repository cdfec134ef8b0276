"""A GRPO step: sampling, scoring and training; rewards that cost nothing, no reference.

`as it comes`: TRL with the whole step as one batch and all else at its defaults (but float32 for bfloat16, as ours). `a group at a time`,
in the full form: in the update, without checkpointing; they are sampled in one batch all the same. As lengths differ from step to step and
from library to library, the time of a step is also given per thousand sampled tokens. The step to warm up has the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bench.harness import Case, Options, Side
from bench.processes import trl_python
from bench.rows import texts, training
from bench.suites.preference import PAD

TITLE = "A GRPO step"


def cases(options: Options) -> list[Case]:
    prompts, prompt, group, longest = (2, 64, 6, 32) if options.short else (4, 128, 8, 128)
    shared = {"num_generations": group, "max_completion_length": longest}
    whole = {"per_device_train_batch_size": prompts * group}
    parts = {"per_device_train_batch_size": group, "gradient_accumulation_steps": prompts, "gradient_checkpointing": False}
    rows = [{"prompt": text} for text in texts(options.model, [prompt] * prompts)]
    more: dict[str, Any] = {"method": "grpo", "pad_token": PAD, "completions": prompts * group}
    ours = training(rows, shared | {"batch_size": prompts, "reward_workers": 1}, options, theirs=False, **more)
    sides = [Side(name="ours", subject="training", spec=ours)]
    for name, own in (("TRL, as it comes", whole), ("TRL, a group at a time", parts)):
        if not (options.short and own is parts):
            spec = training(rows, shared | own, options, theirs=True, **more)
            sides.append(Side(name=name, subject="training", spec=spec, python=trl_python(options.trl_python)))
    return [
        Case(
            name="grpo",
            title="GRPO",
            about=f"{prompts} prompts of {prompt} tokens, {group} completions each, of at most {longest} tokens.",
            sides=sides,
            shown=("cpu_s_per_1000", "cpu_s", "wall_s", "peak_bytes"),
            work=partial(flop, prompt_tokens=prompts * prompt),
        )
    ]


def flop(facts: Mapping[str, Any], *, prompt_tokens: int) -> list[float]:
    """Of each step's matrix products: prompts and samples forward to sample, both ways to train (see `sft.flop`)."""
    layers, head = facts["layer_parameters"], facts["head_parameters"]
    return [8.0 * (layers * (prompt_tokens + sampled) + head * sampled) for sampled in facts["sampled_tokens"]]
