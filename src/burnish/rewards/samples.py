"""What a reward sees, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class RewardError(ValueError):
    """A reward cannot be used, or fails too often. One sentence: which, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One completion, as a reward sees it."""

    prompt: str | list[dict[str, Any]]
    """Text, or messages, as in the row."""
    completion: str | list[dict[str, Any]]
    """Text, or messages (an assistant's, and with tools those between), as the prompt is."""
    completion_ids: np.ndarray
    """Every token after the prompt."""
    finish_reason: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns."""

    @property
    def text(self) -> str:
        """The completion as text: of messages the content of the last."""
        return self.completion if isinstance(self.completion, str) else str(self.completion[-1].get("content") or "")


@dataclass(frozen=True, slots=True)
class Failure:
    """In a reward's place where there is none, because it failed: never a number. Counted by reason."""

    reason: str
    """A few words that many failures have in common: "raised ZeroDivisionError", "took more than 10 s"."""
    detail: str = ""


Reward = float | None | Failure
"""None: the reward has nothing to say of this completion."""
