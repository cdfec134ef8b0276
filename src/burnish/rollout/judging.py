"""Between groups of rollouts and the columns that `ops/advantages.py` computes with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from burnish.ops.reduce import Totals
from burnish.rollout.examples import examples_of
from burnish.rollout.groups import Group, Judged, Rollout
from burnish.types import Example

ROUNDING = 1e-5
"""Nats of a token, by which two float32 forwards of the same model may differ. A completion that diverges by less on average does not
diverge: rounding would tell completions of equal reward apart, and an optimizer that divides by the size of gradients would follow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTable:
    """All rollouts of some groups, one after the other. B rollouts, K reward functions."""

    reward_BK: Tensor
    """float64; 0 where there is none."""
    valid_BK: Tensor
    """bool: whether there is one. A rollout with a reward that failed has none at all."""
    group_B: Tensor
    """Which group each belongs to."""


def reward_table(groups: Sequence[Group]) -> RewardTable:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rows = [[one if isinstance(one, int | float) and not rollout.failed else None for one in rollout.rewards] for rollout in rollouts]
    functions = len(rows[0]) if rows else 0
    return RewardTable(
        reward_BK=torch.tensor([[one or 0.0 for one in row] for row in rows], dtype=torch.float64).view(-1, functions),
        valid_BK=torch.tensor([[one is not None for one in row] for row in rows], dtype=torch.bool).view(-1, functions),
        group_B=torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(group.rollouts) for group in groups])),
    )


def judged(table: RewardTable, reward_B: Tensor, valid_B: Tensor, advantage_B: Tensor, divergence_B: Tensor | None = None) -> Judged:
    """Column by column → group by group. A group has something to learn from where one of its advantages is not 0.

    `divergence_B`, where the rewards have a divergence taken off them, is logged by completion.
    """
    metrics: Totals = {} if divergence_B is None else {"kl": (float(divergence_B.sum()), len(divergence_B))}
    sizes = torch.bincount(table.group_B).tolist()
    rewards = [reward if valid else None for reward, valid in zip(reward_B.tolist(), valid_B.tolist(), strict=True)]
    advantages = advantage_B.tolist()
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    parts = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    return Judged(
        rewards=tuple(tuple(rewards[part]) for part in parts),
        advantages=tuple(tuple(advantages[part]) for part in parts),
        signal=tuple(any(advantages[part]) for part in parts),
        metrics=metrics,
    )


def reference_logps(groups: Sequence[Group], ref_logps: Callable[[Sequence[Example]], list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Group by group and rollout by rollout the log-probs of all its sampled tokens under the reference, in nats.

    `ref_logps`: log-probs of all targets of each example under the reference. Call on every rank.
    """
    examples = [examples_of(group, [True] * len(group.rollouts), [0.0] * len(group.rollouts), keep_all=True) for group in groups]
    found = iter(ref_logps([one for group in examples for one in group]))
    return [_of_group(group, [next(found) for _ in mine]) for group, mine in zip(groups, examples, strict=True)]


def behaviour_logps(rollout: Rollout) -> np.ndarray:
    """Of all its sampled tokens under the policy that sampled them, in nats; float64."""
    said = [np.asarray(segment.behaviour_logp, np.float64) for segment in rollout.segments if segment.trained]
    return np.concatenate([np.zeros(0), *said])


def divergences(groups: Sequence[Group], references: Sequence[Sequence[np.ndarray]]) -> Tensor:
    """``log π(y) - log π_ref(y)`` of every rollout, over all its sampled tokens, in nats: float64 `[B]`. 0 where that is `ROUNDING`.

    `references`: of `reference_logps`.
    """
    sums = []
    for group, mine in zip(groups, references, strict=True):
        for rollout, reference in zip(group.rollouts, mine, strict=True):
            total = float((behaviour_logps(rollout) - reference).sum())
            sums.append(total if abs(total) > ROUNDING * len(reference) else 0.0)
    return torch.tensor(sums, dtype=torch.float64)


def _of_group(group: Group, logps: list[np.ndarray]) -> list[np.ndarray]:
    """In the order in which `examples_of` lays paths out: those that share the prompt in one example, each other in its own."""
    shares = any(not path.own_prompt for rollout in group.rollouts for path in rollout.paths)
    shared, own = (logps[0] if shares else np.zeros(0)), iter(logps[shares:])
    found = []
    for rollout in group.rollouts:
        parts = [np.zeros(0)]
        for path in rollout.paths:
            if path.own_prompt:
                parts.append(next(own))
                continue
            count = sum(len(segment) for segment in path.segments if segment.trained)
            parts.append(shared[:count])
            shared = shared[count:]
        found.append(np.concatenate(parts))
    return found
