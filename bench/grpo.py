"""A GRPO step of SmolLM2, sampling, scoring and training, side by side with TRL 1.16 in one run: `make bench-grpo`.

    python bench/grpo.py --trl-python .venv-trl/bin/python

Four prompts of 128 words, each one token, with eight completions of at most 128 tokens, whose lengths are what they come to; rewards
that cost nothing; no reference. How it is measured: `side_by_side.py`. As lengths differ from step to step and from library to library,
the time of a step is also given per thousand sampled tokens.

`as it comes`: TRL with the whole step as one batch and all else at its defaults (but float32 for bfloat16, as ours). `best`: eight
completions at a time in the update, without checkpointing; they are sampled in one batch all the same.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from side_by_side import Turns, describe, parser, processor, ratios_of, show_ratios, specification, texts, turn, write

PROMPTS, PROMPT, COMPLETIONS, LONGEST = 4, 128, 8, 128


def sides() -> dict[str, dict[str, Any]]:
    """By name: ours first."""
    shared = {"num_generations": COMPLETIONS, "max_completion_length": LONGEST}
    whole = {"per_device_train_batch_size": PROMPTS * COMPLETIONS}
    parts = {"per_device_train_batch_size": COMPLETIONS, "gradient_accumulation_steps": PROMPTS, "gradient_checkpointing": False}
    return {
        "ours": {"options": shared | {"batch_size": PROMPTS, "reward_workers": 1}},
        "TRL, as it comes": {"options": shared | whole},
        "TRL, best": {"options": shared | parts},
    }


def rows(model: Path) -> list[dict[str, Any]]:
    return [{"prompt": text} for text in texts(model, [PROMPT] * PROMPTS)]


def main() -> None:
    options = parser(__doc__, "runs/bench-grpo.json").parse_args()
    print(f"{options.compute_dtype}, {options.threads} thread(s), {processor()}; {options.rounds} rounds of {options.steps} steps")
    turns: Turns = {name: [] for name in sides()}
    for _ in range(options.rounds):
        for name, own in sides().items():
            spec = specification(rows(options.model), own, options, theirs=name != "ours", method="grpo")
            spec["options"] = {key: value for key, value in spec["options"].items() if key not in ("max_length", "train_sampling_strategy")}
            turns[name].append(turn(name, spec | {"pad_token": "<|endoftext|>"}, options))
            print(f"{'':36} {_per_thousand(turns[name][-1]):7.2f} CPU s per thousand sampled tokens", flush=True)
    if options.rounds > 1:
        print("\n".join(describe(name, results) for name, results in turns.items()))
    show_ratios(ratios := ratios_of(turns, "ours"), "ours")
    for name in ratios:
        pairs = zip(turns[name], turns["ours"], strict=True)
        ratios[name]["cpu_s_per_token"] = median(_per_thousand(theirs) / _per_thousand(ours) for theirs, ours in pairs)
        print(f"{name} / ours: CPU time per sampled token {ratios[name]['cpu_s_per_token']:.2f}")
    write({"prompts": PROMPTS, "prompt": PROMPT, "completions": COMPLETIONS, "longest": LONGEST, "turns": turns, "ratios": ratios}, options)


def _per_thousand(result: dict[str, Any]) -> float:
    """Median processor seconds of the measured steps, each divided by the thousands of tokens that were sampled in it."""
    lengths = [line["completions/mean_length"] * PROMPTS * COMPLETIONS / 1000 for line in result["log"][-len(result["cpu_s"]) :]]
    return median(seconds / thousands for seconds, thousands in zip(result["cpu_s"], lengths, strict=True))


if __name__ == "__main__":
    main()
