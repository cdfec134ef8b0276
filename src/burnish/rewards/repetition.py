"""A penalty for saying the same again: ``p (1 - unique/all)`` of the n-grams of tokens (Yeo et al. 2025, arXiv:2502.03373, app. C.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from burnish.rewards.samples import RewardError, Sample


def repetition(*, ngram_size: int = 3, max_penalty: float = -1.0) -> Callable[[Sample], float]:
    """Example: of the tokens 5 5 5 5 5 with n = 2, of whose four pairs one is unique: -0.75. 0 of fewer than n tokens.

    Raises RewardError for a penalty above 0 and for n below 1.
    """
    _check(ngram_size, max_penalty)
    return lambda sample: repeated(sample.completion_ids.tolist(), ngram_size, max_penalty)


def get_repetition_penalty_reward(ngram_size: int = 3, max_penalty: float = -1.0) -> Callable[..., list[float]]:
    """As TRL's of this name: `repetition` of lists of token ids."""
    _check(ngram_size, max_penalty)

    def repetition_penalty_reward(completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
        return [repeated(ids, ngram_size, max_penalty) for ids in completion_ids]

    return repetition_penalty_reward


def repeated(ids: Sequence[int], ngram_size: int, max_penalty: float) -> float:
    """The reward of these tokens."""
    ngrams = [tuple(ids[i : i + ngram_size]) for i in range(len(ids) - ngram_size + 1)]
    share = 1.0 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
    return share * max_penalty if share else 0.0


def _check(ngram_size: int, max_penalty: float) -> None:
    if max_penalty > 0 or ngram_size < 1:
        raise RewardError(f"ngram_size={ngram_size} must be at least 1, and max_penalty={max_penalty} at most 0.")
