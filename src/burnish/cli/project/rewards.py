"""What an answer is worth. `reward_funcs` in config.yaml names these functions.

A reward is given a sample: `text`, what the model said; `prompt`; `columns`, the row's other columns; `finish_reason`, which is "length"
where the answer was cut off. It returns a number, or None where it has nothing to say. `burnish inspect` tries it on a made-up answer.
"""

import re


def right(sample) -> float:
    """1 where the last number of the answer is the row's, else 0."""
    numbers = re.findall(r"-?\d+", sample.text)
    return float(bool(numbers) and numbers[-1] == sample.columns["answer"])


def finished(sample) -> float:
    """1 where the model ended its answer by itself."""
    return float(sample.finish_reason == "stop")
