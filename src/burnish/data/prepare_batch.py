"""A batch of rows → columns of examples: truncation, what is dropped, and the count of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.data.formats import Format
from burnish.data.prepare_report import Tally
from burnish.data.readers import Pieces, PrepareOptions, RowError, reader_for
from burnish.data.rows import Row
from burnish.data.store import ColumnBuilder, Columns, Piece


class BatchPreparer:
    """Prepares batches of one source. Worker processes build their own from the same arguments.

    Errors: those of `reader_for`.
    """

    def __init__(self, tokenizer: Any, options: PrepareOptions, fmt: Format) -> None:
        self._options = options
        self._reader = reader_for(fmt, tokenizer, options)
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def __call__(self, rows: Sequence[Row], first: int) -> tuple[Columns, Tally]:
        return self.tokenise(self.render(rows, first), first)

    def render(self, rows: Sequence[Row], first: int) -> Any:
        """The batch's Python; `tokenise` is its Rust, during which another thread may render. `first` numbers the first row."""
        return self._reader.render(rows, first)

    def tokenise(self, rendered: Any, first: int) -> tuple[Columns, Tally]:
        """Columns of the rows kept, and the count of all. Errors: RowError for a doubled BOS, or too long a row in mode error."""
        tally, builder = Tally(), ColumnBuilder()
        for row, made in enumerate(self._reader.tokenise(rendered, first, tally), first):
            tally.counts["rows"] += 1
            if made is None:
                tally.add("dropped_empty", row)
                continue
            kept = self._keep(row, made, tally)
            if kept is not None:
                builder.add(row, kept[0], [kept[1]], _trained(kept[0] + kept[1]))
        return builder.columns(), tally

    def _keep(self, row: int, made: Pieces, tally: Tally) -> Pieces | None:
        """The row as it enters the store; None where it does not."""
        prompt, branch = ([piece for piece in part if len(piece[0])] for part in made)
        length = _tokens(prompt) + _tokens(branch)
        tally.lengths[length] += 1
        self._check_bos(row, prompt + branch)
        limit = self._options.max_length
        if limit is not None and length > limit:
            if self._options.truncation_mode == "error":
                raise RowError(row, f"{length} tokens are more than max_length={limit}; raise it, or choose another truncation_mode.")
            if self._options.truncation_mode == "drop":
                tally.add("dropped_too_long", row)
                return None
            start = 0 if self._options.truncation_mode == "keep_start" else length - limit
            prompt, branch = _slice(prompt, start, start + limit), _slice(branch, start - _tokens(prompt), start + limit - _tokens(prompt))
        prompt, branch = _first_is_context(prompt, branch)
        if not _trained(prompt + branch):
            tally.add("dropped_nothing_trained", row)
            return None
        self._count(row, prompt, branch, length, tally)
        return prompt, branch

    def _count(self, row: int, prompt: list[Piece], branch: list[Piece], length: int, tally: Tally) -> None:
        kept = _tokens(prompt) + _tokens(branch)
        if kept < length:
            tally.add("cut", row)
            tally.counts["tokens_cut"] += length - kept
        if not any(piece[2] and self._eos in piece[0] for piece in reversed(branch)):
            tally.add("missing_eos", row)
        tally.counts.update(kept=1, tokens=kept, trained_tokens=_trained(prompt + branch))

    def _check_bos(self, row: int, pieces: Sequence[Piece]) -> None:
        head = [int(token) for ids, _, _ in pieces[:2] for token in ids[:2]][:2]
        if self._bos is not None and self._bos != self._eos and head == [self._bos, self._bos]:
            raise RowError(
                row, f"the row begins with two BOS tokens (id {self._bos}): the tokenizer and the data write one each; remove one."
            )


def _tokens(pieces: Sequence[Piece]) -> int:
    return sum(len(ids) for ids, _, _ in pieces)


def _trained(pieces: Sequence[Piece]) -> int:
    return sum(len(ids) for ids, _, trained in pieces if trained)


def _slice(pieces: Sequence[Piece], start: int, stop: int) -> list[Piece]:
    """Tokens `start:stop` of the pieces put end to end."""
    out, at = [], 0
    for ids, source, trained in pieces:
        part = ids[max(0, start - at) : max(0, stop - at)]
        if len(part):
            out.append((part, source, trained))
        at += len(ids)
    return out


def _first_is_context(prompt: list[Piece], branch: list[Piece]) -> Pieces:
    """The first token of a row has nothing to be predicted from: it is context, so that counts of trained tokens are exact."""
    pieces = prompt or branch
    if not pieces or not pieces[0][2]:
        return prompt, branch
    ids, source, _ = pieces[0]
    parts: list[Piece] = [(ids[:1], source, False), (ids[1:], source, True)]
    pieces = [*(part for part in parts if len(part[0])), *pieces[1:]]
    return (pieces, branch) if prompt else ([], pieces)
