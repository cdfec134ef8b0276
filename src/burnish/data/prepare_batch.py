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
        """Columns of the rows kept, and the count of all. `first` is the number of the first row.

        Errors: RowError for a row that the template refuses, a doubled BOS, or too long a row in mode error.
        """
        tally, builder = Tally(), ColumnBuilder()
        for row, made in enumerate(self._reader.read(rows, first, tally), first):
            tally.counts["rows"] += 1
            if made is None:
                tally.add("dropped_empty", row)
                continue
            length = count_tokens(made[0]) + count_tokens(made[1])
            tally.lengths[length] += 1
            check_bos(row, (*made[0], *made[1]), self._bos, self._eos, tally)
            cut = self._cut(row, made, length)
            if cut is None:
                tally.add("dropped_too_long", row)
                continue
            prompt, branch = first_is_context(*cut)
            trained = sum(len(ids) for ids, _, is_trained in (*prompt, *branch) if is_trained)
            if not trained:
                tally.add("dropped_nothing_trained", row)
                continue
            builder.add(row, prompt, [branch], trained)
            self._count(row, (prompt, branch), length, trained, tally)
        return builder.columns(), tally

    def _cut(self, row: int, made: Pieces, length: int) -> Pieces | None:
        """The row, cut where it is too long; None where it is dropped."""
        limit, mode = self._options.max_length, self._options.truncation_mode
        if limit is None or length <= limit:
            return made
        if mode == "error":
            raise RowError(row, f"{length} tokens are more than max_length={limit}; raise it, or choose another truncation_mode.")
        if mode == "drop":
            return None
        start = 0 if mode == "keep_start" else length - limit
        before = count_tokens(made[0])
        return cut_pieces(made[0], start, start + limit), cut_pieces(made[1], start - before, start + limit - before)

    def _count(self, row: int, kept: Pieces, length: int, trained: int, tally: Tally) -> None:
        prompt, branch = kept
        tokens = count_tokens(prompt) + count_tokens(branch)
        if tokens < length:
            tally.add("cut", row)
            tally.counts["tokens_cut"] += length - tokens
        if not any(piece[2] and self._eos in piece[0] for piece in reversed(branch)):
            tally.add("missing_eos", row)
        tally.counts["kept"] += 1
        tally.counts["tokens"] += tokens
        tally.counts["trained_tokens"] += trained


def check_bos(row: int, pieces: Sequence[Piece], bos: int | None, eos: int | None, tally: Tally) -> None:
    """Errors: RowError for a row that begins with two BOS tokens, unless they are EOS tokens too; then it is counted."""
    if bos is None:
        return
    head = [int(token) for ids, _, _ in pieces[:3] for token in ids[:2]][:2]
    if head != [bos, bos]:
        return
    tally.add("duplicate_bos", row)
    if bos != eos:  # an EOS may stand there on purpose
        raise RowError(row, f"the row begins with two BOS tokens (id {bos}): the tokenizer and the data write one each; remove one.")


def count_tokens(pieces: Sequence[Piece]) -> int:
    """Tokens of the pieces."""
    return sum(len(ids) for ids, _, _ in pieces)


def cut_pieces(pieces: Sequence[Piece], start: int, stop: int) -> list[Piece]:
    """Tokens `start:stop` of the pieces put end to end."""
    out, at = [], 0
    for ids, source, trained in pieces:
        part = ids[max(0, start - at) : max(0, stop - at)]
        if len(part):
            out.append((part, source, trained))
        at += len(ids)
    return out


def first_is_context(prompt: list[Piece], branch: list[Piece]) -> Pieces:
    """The first token of a row has nothing to be predicted from: it is context, so that counts of trained tokens are exact.

    Pieces without tokens are left out.
    """
    prompt, branch = [piece for piece in prompt if len(piece[0])], [piece for piece in branch if len(piece[0])]
    part = prompt or branch
    if part and part[0][2]:
        ids, source, _ = part[0]
        part[:1] = [(ids[:1], source, False), (ids[1:], source, True)] if len(ids) > 1 else [(ids, source, False)]
    return prompt, branch
