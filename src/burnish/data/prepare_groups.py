"""A batch of rows of preferences → columns of examples: truncation, what is dropped, and the count of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from burnish.data.formats import GROUP_FORMATS, Format
from burnish.data.groups import Group, group_reader_for, ids_of, only_last
from burnish.data.prepare_batch import BatchPreparer, check_bos, count_tokens, cut_pieces, first_is_context
from burnish.data.prepare_report import Tally
from burnish.data.readers import PrepareOptions, RowError
from burnish.data.rows import Row
from burnish.data.store import ColumnBuilder, Columns


class Preparer(Protocol):
    """Rows to columns of examples and their count."""

    def __call__(self, rows: Sequence[Row], first: int) -> tuple[Columns, Tally]: ...


def preparer_for(tokenizer: Any, options: PrepareOptions, fmt: Format) -> Preparer:
    """What prepares batches of rows of `fmt`. Errors: those of `reader_for` and `group_reader_for`."""
    return GroupPreparer(tokenizer, options, fmt) if fmt.name in GROUP_FORMATS else BatchPreparer(tokenizer, options, fmt)


class GroupPreparer:
    """Prepares batches of one source of preferences. Worker processes build their own from the same arguments.

    Errors: those of `group_reader_for`.
    """

    def __init__(self, tokenizer: Any, options: PrepareOptions, fmt: Format) -> None:
        self._options, self._format = options, fmt
        self._reader = group_reader_for(fmt, tokenizer, options)
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def __call__(self, rows: Sequence[Row], first: int) -> tuple[Columns, Tally]:
        """Columns of the rows kept, and the count of all. `first` is the number of the first row.

        Errors: RowError for a row that the template refuses, a doubled BOS, or too long a row in mode error.
        """
        tally, builder = Tally(), ColumnBuilder()
        for row, made in enumerate(self._reader.read(rows, first, tally), first):
            tally.counts["rows"] += 1
            kept = made if isinstance(made, str) else self._fit(row, made, tally)
            if isinstance(kept, str):
                tally.add(kept, row)
                continue
            assert isinstance(made, Group)
            trained = _trained(kept)
            builder.add(
                row,
                kept.prompt,
                kept.branches,
                trained,
                labels=kept.labels,
                segment_labels=_segment_labels(kept),
                margin=kept.margin,
            )
            self._count(row, made, kept, trained, tally)
        return builder.columns(), tally

    def _fit(self, row: int, made: Group, tally: Tally) -> Group | str:
        """The group within `max_length`, or the kind as which it is dropped."""
        prompt = count_tokens(made.prompt)
        length = prompt + max(map(count_tokens, made.branches))
        tally.lengths[length] += 1
        check_bos(row, (*made.prompt, *made.branches[0]), self._bos, self._eos, tally)
        limit = self._options.max_length
        if limit is not None and length > limit:
            cut = self._cut(row, made, prompt, length, limit)
            if isinstance(cut, str):
                return cut
            made = cut
        if len(made.branches) == 2 and np.array_equal(ids_of(made.branches[0]), ids_of(made.branches[1])):
            return "dropped_equal"
        made = _first_tokens_are_context(made)
        if not all(any(piece[2] for piece in branch) for branch in made.branches):
            return "dropped_nothing_trained"
        return made

    def _cut(self, row: int, made: Group, prompt: int, length: int, limit: int) -> Group | str:
        mode = self._options.truncation_mode
        if mode == "error":
            too_long = f"{length} tokens are more than max_length={limit}"
            if prompt >= limit:
                too_long = f"the prompt alone has {prompt} tokens, which leaves no room for a completion in max_length={limit}"
            raise RowError(row, f"{too_long}; raise it, or choose another truncation_mode.")
        if mode == "keep_end":  # the same cut for all branches, so that the prompt stays shared
            over = length - limit
            return replace(made, prompt=cut_pieces(made.prompt, over, prompt)) if over < prompt else "dropped_too_long"
        if prompt >= limit:
            return "dropped_prompt_too_long"
        if mode == "drop":
            return "dropped_too_long"
        branches = [cut_pieces(branch, 0, limit - prompt) for branch in made.branches]
        if self._options.targets == "last":
            branches = [only_last(branch) for branch in branches]
        return replace(made, branches=branches)

    def _count(self, row: int, made: Group, kept: Group, trained: int, tally: Tally) -> None:
        tokens, before = (count_tokens(one.prompt) + sum(map(count_tokens, one.branches)) for one in (kept, made))
        if tokens < before:
            tally.add("cut", row)
            tally.counts["tokens_cut"] += before - tokens
        if self._format.name != "stepwise" and not all(
            any(piece[2] and self._eos in piece[0] for piece in reversed(branch)) for branch in kept.branches
        ):
            tally.add("missing_eos", row)
        tally.counts["kept"] += 1
        tally.counts["tokens"] += tokens
        tally.counts["trained_tokens"] += trained
        for label in kept.labels or ():
            tally.counts["desirable" if label else "undesirable"] += 1


def _trained(group: Group) -> int:
    return sum(len(ids) for branch in group.branches for ids, _, trained in branch if trained)


def _first_tokens_are_context(group: Group) -> Group:
    """Without a prompt the first token of each branch has nothing to be predicted from. Pieces without tokens are left out."""
    prompt = [piece for piece in group.prompt if len(piece[0])]
    branches = [first_is_context(prompt, branch)[1] for branch in group.branches]
    labels = group.step_labels
    if labels is not None:  # a step that was cut away has lost its label, and so has one that is the row's first token
        before, left = (sum(trained for _, _, trained in branch) for branch in (group.branches[0], branches[0]))
        labels = labels[before - left : before]
    return replace(group, prompt=prompt, branches=branches, step_labels=labels)


def _segment_labels(group: Group) -> list[int] | None:
    if group.step_labels is None:
        return None
    labels = iter(group.step_labels)
    return [next(labels) if trained else -1 for _, _, trained in (*group.prompt, *group.branches[0])]
