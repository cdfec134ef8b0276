"""A reward of grpo.yaml's own."""

from burnish.rewards.numeric import last_number


def sign(sample) -> float:
    """1 where the last number of the completion is below zero just where the answer is; a completion without a number has none."""
    found = last_number(sample.text)
    return float(found is not None and (found < 0) == (float(sample.columns["answer"]) < 0))
