"""Sums and counts. A loss is divided by `loop.py`, once; metrics by `means`, when they are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from burnish.types import Sum

Totals = dict[str, tuple[float, float]]
"""Name → (total, count). Of standard errors the total is one of squares."""
ERRORS = frozenset({"reward_stderr"})


def add(totals: Totals, more: Mapping[str, tuple[float, float]]) -> Totals:
    """Adds `more` to `totals`, in place, name by name."""
    for name, (total, count) in more.items():
        before = totals.get(name, (0.0, 0.0))
        totals[name] = (before[0] + total, before[1] + count)
    return totals


def read(sums: Iterable[Mapping[str, Sum]]) -> Totals:
    """Adds up sums that live on a device, in order, with one transfer from it."""
    flat = [(name, one) for group in sums for name, one in group.items()]
    if not flat:
        return {}
    totals: Totals = {}
    for (name, one), total in zip(flat, torch.stack([one.total.double() for _, one in flat]).tolist(), strict=True):
        add(totals, {name: (total, float(one.count))})
    return totals


def means(totals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Name → total / count; what was never counted has no mean. The mean of k numbers with errors eᵢ has the error √(Σ eᵢ²) / k."""
    return {name: (math.sqrt(total) if name in ERRORS else total) / count for name, (total, count) in totals.items() if count}


def per_branch(value_N: Tensor, branch_N: Tensor, branches: int) -> Tensor:
    """Sums `[N]` over the tokens of each branch: `[B]`, zero for a branch without trained tokens."""
    return value_N.new_zeros(branches).index_add(0, branch_N, value_N)
