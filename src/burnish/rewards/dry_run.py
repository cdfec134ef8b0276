"""Before training: each reward function is called once with made-up completions, so that a mistake in it costs no step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from burnish.rewards.pool import RewardPool
from burnish.rewards.samples import Failure, RewardError, Sample

ANSWER = "This is a made-up answer."
OWN = ("prompt", "completion", "completion_ids")
"""Columns that a sample has fields for."""


def columns_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row has beside its prompt: what rewards are given."""
    return {name: value for name, value in row.items() if name not in OWN}


def dry_run(pool: RewardPool, rows: Sequence[Mapping[str, Any]]) -> None:
    """Scores a made-up answer to each of the first two rows. A function may say None of them, and take its time as in training.

    Raises RewardError, in one sentence, for a function that fails: its name, the row, what was raised, and the line.
    """
    futures = [pool.submit([made_up(row)], 0) for row in rows[:2]]
    for i, future in enumerate(futures):
        for func, reward in zip(pool.funcs, future.result().rewards[0], strict=True):
            if isinstance(reward, Failure):
                first = reward.detail.split("\n")[0]
                said = f"{reward.reason}: {first}" if first else reward.reason
                raise RewardError(f"The reward {func.name!r} fails on row {i} with a made-up answer: it {said}; mend it before training.")


def made_up(row: Mapping[str, Any]) -> Sample:
    """The row's prompt with `ANSWER`, as text or as a message."""
    prompt = row["prompt"]
    completion = ANSWER if isinstance(prompt, str) else [{"role": "assistant", "content": ANSWER}]
    ids = np.arange(6, dtype=np.int32)
    return Sample(prompt=prompt, completion=completion, completion_ids=ids, finish_reason="stop", columns=columns_of(row))
