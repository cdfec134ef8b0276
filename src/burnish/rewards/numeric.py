"""Whether the last number of a completion is the one in the row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from burnish.rewards.answers import column
from burnish.rewards.samples import Sample

NUMBER = re.compile(r"(?:(?<![\w).])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)\.\d+|(?<![\d.])\.\d+)?(?:(?<=\d)[eE][-+]?\d+)?")
"""``-1,234.5e-6``, ``.5``. A sign after a letter, a digit or a closing bracket is an operator's."""


def numeric(*, answer: str = "answer", tolerance: float = 1e-6) -> Callable[[Sample], float | None]:
    """1 where the last number of the completion equals the last number of the column, and 0 where not, or where there is none.

    Equal is a difference of at most `tolerance`, or that share of the larger one. None where the column has no number. Examples, all
    equal to "#### 1,234": "so 1234", "$1,234.00", "1.234e3".
    """

    def reward(sample: Sample) -> float | None:
        expected, found = last_number(column(sample, answer)), last_number(sample.text)
        if expected is None:
            return None
        return float(found is not None and math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance))

    return reward


def last_number(cell: Any) -> float | None:
    """Of a text, or the number that it is."""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return float(cell)
    found = [one for one in NUMBER.findall(str(cell).replace("\N{MINUS SIGN}", "-")) if any(map(str.isdigit, one))]
    return float(found[-1].replace(",", "")) if found else None
