"""Optimizer steps from examples. The loop sees only `StepBatch`es and cannot tell a dataset from rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np

from burnish.data.plan import plan_step
from burnish.data.tree import build_tree
from burnish.types import Branch, Example, Segment, TokenTree

Cursor = tuple[int, int]
"""(epoch, index): the next example to draw is the index-th of that epoch's order. Independent of the number of ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """One optimizer step."""

    trees: tuple[TokenTree, ...]
    """This rank's micro-batches. Every rank has the same number; one without work has a tree with no targets."""
    cursor: Cursor
    """Where the next step begins."""
    epoch: float
    """Epochs done when this step is."""
    examples: int
    tokens: int
    trained: int
    """Examples, tokens and trained tokens of the step, over all ranks."""
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """What the source has measured of the step, total and count by name: this rank's part of it."""


class Batches(Protocol):
    """A source of steps: a dataset, a stream, or rollouts."""

    steps_per_epoch: int | None
    """None where the source does not know its length."""

    def steps(self, cursor: Cursor) -> Iterator[StepBatch]:
        """Endless where epochs repeat."""
        ...


class Examples(Protocol):
    """What `OfflineBatches` reads: `store.ExampleStore`, or several as one."""

    lengths: np.ndarray

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example: ...


_TOKEN = np.zeros(1, dtype=np.int32)
NOTHING = Example(
    group_id="nothing",
    prompt=(),
    branches=(Branch(segments=(Segment(token_ids=_TOKEN, source="template", trained=False, policy_version=-1),), advantage=0.0),),
)
"""One token and no target, beside completions that are all left out: a model cannot be run on no token."""


def make_step(examples: Sequence[Example], max_tokens: int, rank: int, ranks: int, cursor: Cursor, epoch: float) -> StepBatch:
    """One step of `examples`, cut in micro-batches of about `max_tokens`; of these the ones of `rank`."""
    plan = plan_step([len(e) for e in examples], max_tokens, ranks)
    return StepBatch(
        trees=tuple(_tree([examples[i] for i in micro]) if micro else _filler(examples[0]) for micro in plan[rank]),
        cursor=cursor,
        epoch=epoch,
        examples=len(examples),
        tokens=sum(map(len, examples)),
        trained=sum(e.trained_tokens for e in examples),
    )


def _tree(examples: Sequence[Example]) -> TokenTree:
    return build_tree(examples if any(map(len, examples)) else [*examples, NOTHING])


def _filler(example: Example) -> TokenTree:
    """A tree of one token and no target, for a rank that has nothing to do while others have."""
    nothing = Segment(token_ids=_TOKEN, source="template", trained=False)
    known = None if example.ref_logp is None else example.ref_logp[:0]  # what is known of nothing
    return build_tree([replace(example, prompt=(), branches=(Branch(segments=(nothing,)),), ref_logp=known)])


class OfflineBatches:
    """Steps of `batch_size` examples in the order that `order_of(epoch)` gives; the last step of an epoch may be smaller."""

    def __init__(
        self, examples: Examples, order_of: Callable[[int], np.ndarray], *, batch_size: int, max_tokens: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self.examples = examples
        self.order_of = order_of
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.rank, self.ranks = rank, ranks
        self.steps_per_epoch: int | None = -(-len(order_of(0)) // batch_size)

    def steps(self, cursor: Cursor) -> Iterator[StepBatch]:
        epoch, index = cursor
        while True:
            order = self.order_of(epoch)
            while index < len(order):
                drawn = order[index : index + self.batch_size]
                index += len(drawn)
                after = (epoch, index) if index < len(order) else (epoch + 1, 0)
                examples = [self.examples[int(i)] for i in drawn]
                yield make_step(examples, self.max_tokens, self.rank, self.ranks, after, epoch + index / len(order))
            epoch, index = epoch + 1, 0


class StreamBatches:
    """Steps from a stream of unknown length. `open_at(cursor)` yields (example, cursor after it); every rank reads all of it.

    Raises ValueError when the stream ends before the first example.
    """

    steps_per_epoch: int | None = None

    def __init__(
        self,
        open_at: Callable[[Cursor], Iterator[tuple[Example, Cursor]]],
        *,
        batch_size: int,
        max_tokens: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.open_at = open_at
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.rank, self.ranks = rank, ranks

    def steps(self, cursor: Cursor) -> Iterator[StepBatch]:
        stream = self.open_at(cursor)
        while drawn := list(islice(stream, self.batch_size)):
            after = drawn[-1][1]
            yield make_step([e for e, _ in drawn], self.max_tokens, self.rank, self.ranks, after, float(after[0]))


def evaluation_trees(examples: Examples, *, max_tokens: int, rank: int = 0, ranks: int = 1) -> Iterator[TokenTree]:
    """Every example once, in micro-batches of like lengths; this rank's share, the same number on every rank."""
    by_length = np.argsort(-np.asarray(examples.lengths), kind="stable")
    plan = plan_step([int(examples.lengths[i]) for i in by_length], max_tokens, ranks)
    for micro in plan[rank]:
        chosen = [examples[int(by_length[i])] for i in micro]
        yield build_tree(chosen) if chosen else _filler(examples[0])
