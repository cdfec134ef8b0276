"""What a user's `compute_metrics` sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish.config.values import ConfigError
from burnish.types import TokenOutputs, TokenTree

Columns = tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalTokens:
    """One entry for each trained token of the evaluation set, over all ranks.

    Logits are never kept; these are what a metric can be made of.
    """

    label_ids: np.ndarray
    """int64: the target."""
    logps: np.ndarray
    """Its log-prob, in nats."""
    entropies: np.ndarray
    """Of the whole next-token distribution, in nats."""
    correct: np.ndarray
    """bool: the target was the most likely token."""
    rows: np.ndarray
    """str: the group id of the token's example."""

    @classmethod
    def joined(cls, parts: Iterable[Columns]) -> EvalTokens:
        """From the columns of every rank."""
        labels, logps, entropies, correct, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(label_ids=labels, logps=logps, entropies=entropies, correct=correct, rows=rows)


TERM = "term "
"""Before the names of the loss's terms, among the metrics of an evaluation."""


def named_metrics(means: Mapping[str, float]) -> dict[str, float]:
    """The means with the loss, which is the sum of its terms, in their place; and the perplexity of a metric named "nll"."""
    named = {name: value for name, value in means.items() if not name.startswith(TERM)}
    if terms := [value for name, value in means.items() if name.startswith(TERM)]:
        named["loss"] = math.fsum(terms)
    return named if "nll" not in named else {**named, "perplexity": math.exp(min(named["nll"], 700.0))}


def named_numbers(found: Any) -> dict[str, float]:
    """What a user's `compute_metrics` gave. Raises ConfigError where it is anything else than numbers by their names."""
    try:
        return {name: float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"compute_metrics gave {found!r}; let it return a dict of names and numbers.") from None


def columns(seen: Iterable[tuple[TokenTree, TokenOutputs]]) -> Columns:
    """This rank's columns, in the order of `EvalTokens`' fields."""
    parts: list[Columns] = [(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, str))]
    for tree, out in seen:
        assert out.entropy_N is not None
        assert out.top1_N is not None
        tensors = (tree.target_N, out.logp_N.float(), out.entropy_N.float(), out.top1_N.bool())
        rows = np.array(tree.group_ids)[tree.example_B[tree.branch_N].cpu().numpy()]
        parts.append((*(t.cpu().numpy() for t in tensors), rows))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
