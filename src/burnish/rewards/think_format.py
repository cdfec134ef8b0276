"""Whether a completion thinks within its tags, and answers within its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from burnish.rewards.answers import text_of
from burnish.rewards.samples import Sample


def think_format(*, prompt_opens: bool = False) -> Callable[[Sample], float]:
    """1 for ``<think>…</think>…``, with nothing before it and no second ``<think>``; else 0.

    With `prompt_opens` the template has written the ``<think>`` into the prompt, and the completion must not.
    """
    return lambda sample: float(_thinks(("<think>" if prompt_opens else "") + sample.text))


def think_answer_format(*, prompt_opens: bool = False) -> Callable[[Sample], float]:
    """1 for ``<think>…</think><answer>…</answer>``, each tag once, and between and around them nothing but white space; else 0."""

    def reward(sample: Sample) -> float:
        text = (("<think>" if prompt_opens else "") + sample.text).strip()
        if (
            not _thinks(text)
            or not text.endswith("</answer>")
            or any(text.count(tag) != 1 for tag in ("</think>", "<answer>", "</answer>"))
        ):
            return 0.0
        return float(text.split("</think>")[1].lstrip().startswith("<answer>"))

    return reward


def think_format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """As TRL's of this name: `think_format` of each completion."""
    return [float(_thinks(text_of(one))) for one in completions]


def _thinks(text: str) -> bool:
    return text.startswith("<think>") and text.count("<think>") == 1 and "</think>" in text
