"""Whether an answer is, letter by letter, the one in the row."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from burnish.rewards.answers import column, final_answer
from burnish.rewards.samples import Sample


def exact(*, answer: str = "answer", ignore_case: bool = True) -> Callable[[Sample], float | None]:
    """1 where the final answer (`final_answer`) equals the column's text, or one of its texts, and 0 where not.

    Both are compared after Unicode's NFKC, with runs of white space as one space, without a full stop at the end, and, with
    `ignore_case`, without case. None where the column is None. Example: "<think>…</think> The  Seine." equals "the Seine".
    """

    def reward(sample: Sample) -> float | None:
        expected = column(sample, answer)
        if expected is None:
            return None
        several = expected if isinstance(expected, list | tuple) else [expected]
        return float(plain(final_answer(sample.text), ignore_case) in {plain(str(one), ignore_case) for one in several})

    return reward


def plain(text: str, ignore_case: bool) -> str:
    """As it is compared."""
    text = " ".join(unicodedata.normalize("NFKC", text).split()).removesuffix(".").rstrip()
    return text.casefold() if ignore_case else text
