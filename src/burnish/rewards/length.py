"""Rewards of how long a completion is, in tokens: DAPO's punishment, and accuracy that is worth more when it is short.

    soft_overlong   0 up to L_max - L_cache, then down to -1 at L_max, -1 beyond          (DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 13)
    cosine          v_min + (v_max - v_min) (1 + cos(π min(|y|/L_max, 1))) / 2            (Yeo et al. 2025, arXiv:2502.03373, appendix C.1)

In the second a right completion goes from `max_value_correct` to `min_value_correct` as it gets longer, and a wrong one from
`min_value_wrong` to `max_value_wrong`. Names and defaults as in TRL 1.16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from burnish.rewards.accuracy import accuracy, accuracy_reward
from burnish.rewards.samples import RewardError, Sample


def soft_overlong(*, max_completion_len: int, soft_punish_cache: int) -> Callable[[Sample], float]:
    """Example: with 100 and 20, of 90 tokens -0.5. Raises RewardError unless ``0 ≤ soft_punish_cache ≤ max_completion_len``."""
    _check_overlong(max_completion_len, soft_punish_cache)
    return lambda sample: overlong(len(sample.completion_ids), max_completion_len, soft_punish_cache)


def get_soft_overlong_punishment(max_completion_len: int, soft_punish_cache: int) -> Callable[..., list[float]]:
    """As TRL's of this name: `soft_overlong` of lists of token ids."""
    _check_overlong(max_completion_len, soft_punish_cache)

    def soft_overlong_punishment_reward(completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
        return [overlong(len(ids), max_completion_len, soft_punish_cache) for ids in completion_ids]

    return soft_overlong_punishment_reward


def overlong(length: int, longest: int, cache: int) -> float:
    """The reward of so many tokens."""
    if length > longest:
        return -1.0
    return (longest - cache - length) / cache if length > longest - cache else 0.0


def _check_overlong(longest: int, cache: int) -> None:
    if not 0 <= cache <= longest:
        raise RewardError(f"soft_punish_cache={cache} is not between 0 and max_completion_len={longest}; choose one that is.")


def cosine(*, max_len: int, solution: str = "solution", **values: float) -> Callable[[Sample], float | None]:
    """`accuracy` that is scaled by length; `values` are those of `scaled`. None where the solution cannot be read."""
    right = accuracy(solution=solution)
    scaled(True, 0, max_len, **values)  # a wrong name is said now

    def reward(sample: Sample) -> float | None:
        correct = right(sample)
        return None if correct is None else scaled(bool(correct), len(sample.completion_ids), max_len, **values)

    return reward


def get_cosine_scaled_reward(max_len: int, *places: float, **values: float) -> Callable[..., list[float | None]]:
    """As TRL's of this name: `cosine` of lists of completions, solutions and token ids; `places` in the order of `scaled`."""
    names = ("min_value_wrong", "max_value_wrong", "min_value_correct", "max_value_correct")
    bounds = dict(zip(names, places, strict=False)) | values

    def cosine_scaled_reward(
        completions: Sequence[Any], solution: Sequence[str], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float | None]:
        rights = accuracy_reward(completions, solution)
        return [
            None if right is None else scaled(bool(right), len(ids), max_len, **bounds)
            for right, ids in zip(rights, completion_ids, strict=True)
        ]

    return cosine_scaled_reward


def scaled(
    correct: bool,
    length: int,
    max_len: int,
    *,
    min_value_wrong: float = -1.0,
    max_value_wrong: float = -0.5,
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
) -> float:
    """The reward of a completion of so many tokens. Example: at half of `max_len`, 0.75 if correct and -0.75 if not."""
    short, long = (max_value_correct, min_value_correct) if correct else (min_value_wrong, max_value_wrong)
    return long + (short - long) * (1.0 + math.cos(math.pi * min(length / max_len, 1.0))) / 2.0
