"""A reward model on the pairs of the preference suite. TRL has the same settings as in DPO there.

The short form leaves `smallest` out: of its two pairs, `as it comes` holds no more.
"""

from __future__ import annotations

from functools import partial

from bench.harness import Case, Options
from bench.suites.preference import about, lengths_of, pairs, sides
from bench.suites.sft import flop

TITLE = "A step of a reward model"


def cases(options: Options) -> list[Case]:
    prompt, completions = lengths_of(options)
    tokens = sum(map(sum, completions)) + prompt * len(completions)
    return [
        Case(
            name="reward",
            title="reward model",
            about=about(options, "reward"),
            sides=sides("reward", pairs(options), len(completions), options),
            shown=("cpu_s", "wall_s", "peak_bytes"),
            same="loss",
            work=partial(flop, tokens=tokens, trained=0, steps=options.steps),
        )
    ]
