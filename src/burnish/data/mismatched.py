"""KTO's second branch: for each example a completion that answers another prompt.

By how likely it is under the policy and under the reference KTO estimates how far the policy has gone (Ethayarajh et al. 2024,
arXiv:2402.01306, section 4.1). The completion is the first one of the *next* example with another prompt: the next in the data, after
the last the first again; of a stream the next to come. Looking ahead and never back, a stream that is continued at a cursor gives what
it would have given, and a file read as a stream gives what it gives as a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from burnish.data.dataset import JoinedExamples, Prepared
from burnish.data.order import Order
from burnish.data.rows import DataError, digest
from burnish.data.store import FirstBranches
from burnish.types import Branch, Example, Segment

PATIENCE = 10_000
"""Examples of a stream in a row with one prompt after which it is given up."""

Cursor = tuple[int, int]
OpenAt = Callable[[Cursor], Iterator[tuple[Example, Cursor]]]


class MismatchedCompletions:
    """`examples` with one more branch each: without a label, the first completion of the next example with another prompt.

    Its end is cut where it would make prompt and completion longer than `max_length` tokens. Prompts are compared by token ids.
    Errors: DataError where all prompts are the same.
    """

    def __init__(self, examples: JoinedExamples, max_length: int | None = None) -> None:
        self.examples, self._max_length = examples, max_length
        self.parts: Sequence[Prepared] = examples.parts
        firsts = [part.first_branches() for part in examples.parts]
        self._partner = _next_with_another_prompt(firsts, name=", ".join(dict.fromkeys(part.name for part in examples.parts)))
        prompts = np.concatenate([one.prompt_end - one.start for one in firsts])
        self._room = np.full(len(examples), np.iinfo(np.int64).max) if max_length is None else np.maximum(max_length - prompts, 1)
        added, trained = self._added(firsts, prompts)
        self.lengths = examples.lengths + added
        self.trained = examples.trained + trained
        self.fingerprint = digest("mismatched", examples.fingerprint, max_length)

    def _added(self, firsts: Sequence[FirstBranches], prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, trained tokens) of each example's new branch."""
        added, trained = np.zeros(len(prompts), dtype=np.int64), np.zeros(len(prompts), dtype=np.int64)
        ends = np.cumsum([len(one.start) for one in firsts])
        for one, end in zip(firsts, ends, strict=True):
            mine = np.flatnonzero((self._partner >= end - len(one.start)) & (self._partner < end))
            lent = self._partner[mine] - (end - len(one.start))
            start = one.prompt_end[lent]
            added[mine] = np.minimum(one.end[lent] - start, self._room[mine])
            unseen = np.where(prompts[mine] == 0, np.minimum(added[mine], 1), 0)  # tokens that nothing stands before
            trained[mine] = one.trained(start + unseen, start + added[mine])
        return added, trained

    def __len__(self) -> int:
        return len(self._partner)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        i = index % len(self)
        return _with_completion(self.examples[i], self.examples[int(self._partner[i])], int(self._room[i]))

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def describe(self) -> dict[str, Any]:
        """For the run's data.json."""
        return self.examples.describe() | {"fingerprint": self.fingerprint}

    def order(self, weights: Sequence[float] | None, *, seed: int, shuffle: bool) -> Order:
        """That of the examples."""
        return self.examples.order(weights, seed=seed, shuffle=shuffle)


def mismatched_stream(open_at: OpenAt, max_length: int | None = None) -> OpenAt:
    """The stream with one more branch for each example, as in `MismatchedCompletions`. The stream has to be endless.

    Errors, when they are reached: DataError where `PATIENCE` examples in a row have one prompt, and where the stream ends.
    """

    def opened(cursor: Cursor) -> Iterator[tuple[Example, Cursor]]:
        waiting: list[tuple[Example, Cursor]] = []  # one after the other with one prompt
        for example, after in open_at(cursor):
            if waiting and not np.array_equal(_prompt(example), _prompt(waiting[0][0])):
                room = None if max_length is None else max(1, max_length - len(_prompt(waiting[0][0])))
                for one, its_cursor in waiting:
                    yield _with_completion(one, example, room), its_cursor
                waiting.clear()
            waiting.append((example, after))
            if len(waiting) >= PATIENCE:
                raise DataError(
                    f"{PATIENCE:,} examples in a row have one prompt, and KTO compares with completions of others; mix the rows."
                )
        raise DataError("The stream has ended, and its last examples have no next one to take a completion from; let it begin again.")

    return opened


def _next_with_another_prompt(firsts: Sequence[FirstBranches], *, name: str) -> np.ndarray:
    """For each example the number of the next one, cyclically, whose prompt has other token ids: int64 ``[examples]``."""
    prompts = [one.tokens[a:b] for one in firsts for a, b in zip(one.start, one.prompt_end, strict=True)]
    count = len(prompts)
    lengths = np.concatenate([one.prompt_end - one.start for one in firsts])
    changes = lengths != np.roll(lengths, -1)
    for i in np.flatnonzero(~changes):
        changes[i] = not np.array_equal(prompts[i], prompts[(i + 1) % count])
    last = np.flatnonzero(changes)  # of each run of one prompt
    if not len(last):
        raise DataError(
            f"The {count:,} examples of {name} have one prompt, and KTO compares with completions of other prompts; add rows with others."
        )
    return (last[np.searchsorted(last, np.arange(count)) % len(last)] + 1) % count


def _with_completion(example: Example, other: Example, room: int | None) -> Example:
    """The first `room` tokens of the other's first completion as a branch without label."""
    segments: list[Segment] = []
    for segment in other.branches[0].segments:
        ids = segment.token_ids if room is None else segment.token_ids[: room - sum(map(len, segments))]
        if not len(ids):
            continue
        if not segments and segment.trained and not len(_prompt(example)):  # nothing to predict it from
            segments.append(Segment(token_ids=ids[:1], source=segment.source, trained=False))
            ids = ids[1:]
        if len(ids):
            segments.append(Segment(token_ids=ids, source=segment.source, trained=segment.trained))
    return replace(example, branches=(*example.branches, Branch(segments=tuple(segments))))


def _prompt(example: Example) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int32), *(segment.token_ids for segment in example.prompt)])
