"""What rewards read of a completion and of its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.rewards.samples import RewardError, Sample

THOUGHT_ENDS = ("</think>",)


def column(sample: Sample, name: str) -> Any:
    """A cell of the row. Raises RewardError where the row has no such column."""
    if name not in sample.columns:
        raise RewardError(f"needs the column {name!r}, which the row does not have")
    return sample.columns[name]


def text_of(completion: str | Sequence[dict[str, Any]]) -> str:
    """A completion as text: of messages the content of the last."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def after_thought(text: str, ends: Sequence[str] = THOUGHT_ENDS) -> str | None:
    """What follows the last of the first of these delimiters that the text has, as in TRL; None where it has none."""
    return next((text.rsplit(end, 1)[1] for end in ends if end in text), None)


def final_answer(text: str) -> str:
    """Between the last ``<answer>`` and ``</answer>`` where there are such; else what follows the last ``</think>``; else all of it."""
    before, tag, rest = text.rpartition("<answer>")
    if tag and "</answer>" in rest:
        return rest.split("</answer>", 1)[0].strip()
    thought = after_thought(text)
    return (text if thought is None else thought).strip()
