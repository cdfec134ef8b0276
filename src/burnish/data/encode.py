"""Renderings → token segments, with every trained boundary exact.

A text is encoded once, as a whole; its spans are mapped to tokens by the tokenizer's offsets. Where one token covers characters on
both sides of a boundary between trained and other text, the text is encoded in pieces that meet at that boundary, and the row is
counted. A tokenizer without offsets (`is_fast` false) encodes every span apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, cast

import numpy as np

from burnish.data.spans import Rendering, Span
from burnish.data.store import Piece
from burnish.data.words import Cut, WordEncoder
from burnish.types import SOURCES, Segment

_INDEX = {source: i for i, source in enumerate(SOURCES)}
_CONTEXT = 64  # characters: longer than any token that matters at a boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Tokens of a batch of renderings, row for row."""

    pieces: Sequence[Sequence[Piece]]
    straddled: int
    """Rows in which a token would have covered both trained and other text, and which were therefore encoded in pieces."""
    duplicate_bos: int
    """Rows that begin with two BOS tokens: the template and the data have each written one."""

    @property
    def rows(self) -> tuple[tuple[Segment, ...], ...]:
        """The pieces of each row as segments."""
        return tuple(
            tuple(Segment(token_ids=np.asarray(ids), source=SOURCES[source], trained=on) for ids, source, on in row) for row in self.pieces
        )


@dataclass(slots=True, kw_only=True)
class _Part:
    """Spans of one row that are encoded together, after one of `contexts` (tried in order; the text's own start is "")."""

    row: int
    text: str
    spans: tuple[Span, ...]
    contexts: tuple[str, ...]

    @property
    def start(self) -> int:
        return self.spans[0].start

    def body(self) -> str:
        return self.text[self.spans[0].start : self.spans[-1].end]


@dataclass(slots=True)
class _Row:
    """Pieces by the character at which they start, and the ids of the text encoded as a whole."""

    whole: np.ndarray | None = None
    joined: bool = False
    """A token covers the end of the text before and the start of this one."""
    pieces: list[tuple[int, Piece]] = field(default_factory=list)


class SegmentEncoder:
    """Encodes with one tokenizer, never adding special tokens: a template has written them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = _offsets_backend(tokenizer) if tokenizer.is_fast else None
        self._words = None if self._backend is None else WordEncoder.for_backend(self._backend)
        newline, after_newline = self._ids("\n"), self._ids("\na")
        prefixes = self._ids("a") != after_newline[len(newline) :]  # SentencePiece puts a space before the start of a text
        self._inner_contexts = ("\n", "") if prefixes else ("",)
        self._bos = tokenizer.bos_token_id

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which need no transformers where there is a backend."""
        return {**cast(dict[str, Any], super().__getstate__()), "_tokenizer": self._tokenizer if self._backend is None else None}

    def __call__(self, renderings: Sequence[Rendering]) -> Encoded:
        rows = [_Row() for _ in renderings]
        pieces = [
            _Part(
                row=i,
                text=rendering.text,
                spans=rendering.spans,
                contexts=(rendering.before[-_CONTEXT:], *self._inner_contexts) if rendering.before else ("",),
            )
            for i, rendering in enumerate(renderings)
            if rendering.spans
        ]
        while pieces:
            pieces = self._round(pieces, rows) if self._backend is not None else self._apart(pieces, rows)
        return self._encoded(rows)

    def _round(self, pieces: Sequence[_Part], rows: Sequence[_Row]) -> list[_Part]:
        """Encode all pieces in one batch; return those that have to be encoded again, cut at the boundaries that tokens straddle."""
        again: list[_Part] = []
        assert self._backend is not None
        for piece, (ids, ((first, clean), *cuts)) in zip(pieces, self._encode(pieces), strict=True):
            if not clean and len(piece.contexts) > 1:
                rows[piece.row].joined |= len(piece.contexts) > len(self._inner_contexts)
                piece.contexts = piece.contexts[1:]
                again.append(piece)
                continue
            torn = [i for i, (_, clean) in enumerate(cuts, start=1) if not clean and piece.spans[i].trained != piece.spans[i - 1].trained]
            row = rows[piece.row]
            if torn:
                row.whole = ids[first:] if row.whole is None else row.whole
                again += self._split(piece, torn)
            else:
                edges = [first, *(token for token, _ in cuts), len(ids)]
                row.pieces += _pieces(piece.spans, [ids[a:b] for a, b in zip(edges, edges[1:], strict=False)])
        return again

    def _encode(self, pieces: Sequence[_Part]) -> list[tuple[np.ndarray, list[Cut]]]:
        """Ids of each piece behind its context, and the cut at the start of each of its spans."""
        assert self._backend is not None
        texts = [piece.contexts[0] + piece.body() for piece in pieces]
        places = [[span.start - piece.start + len(piece.contexts[0]) for span in piece.spans] for piece in pieces]
        by_word = None if self._words is None else self._words.encode_with_cuts(texts, places, _cut)
        if by_word is not None:
            return by_word
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            (np.asarray(encoding.ids, dtype=np.int32), [_cut(encoding, at, len(text)) for at in row])
            for encoding, text, row in zip(encodings, texts, places, strict=True)
        ]

    def _split(self, piece: _Part, at: Sequence[int]) -> list[_Part]:
        edges = [0, *at, len(piece.spans)]
        parts = [piece.spans[a:b] for a, b in zip(edges, edges[1:], strict=False)]
        return [
            _Part(row=piece.row, text=piece.text, spans=spans, contexts=self._inner_contexts if i else piece.contexts)
            for i, spans in enumerate(parts)
        ]

    def _apart(self, pieces: Sequence[_Part], rows: Sequence[_Row]) -> list[_Part]:
        """For a tokenizer without offsets: every span by itself."""
        for piece in pieces:
            row = rows[piece.row]
            row.whole = np.asarray(self._after(piece.body(), piece.contexts), dtype=np.int32)
            ids = [
                np.asarray(self._after(piece.text[span.start : span.end], self._inner_contexts if i else piece.contexts), dtype=np.int32)
                for i, span in enumerate(piece.spans)
            ]
            row.pieces += _pieces(piece.spans, ids)
        return []

    def _after(self, text: str, contexts: Sequence[str]) -> list[int]:
        """Ids of `text` in the first context whose own ids the text leaves as they are."""
        for context in contexts:
            before, both = self._ids(context), self._ids(context + text)
            if both[: len(before)] == before:
                return both[len(before) :]
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False) if text else []

    def _encoded(self, rows: Sequence[_Row]) -> Encoded:
        straddled = doubled = 0
        out = []
        bos = self._bos
        for row in rows:
            row.pieces.sort(key=itemgetter(0))
            pieces = [piece for _, piece in row.pieces]
            apart = row.whole is not None and not np.array_equal(row.whole, np.concatenate([ids for ids, _, _ in pieces]))
            straddled += apart or row.joined
            doubled += bos is not None and [token for ids, _, _ in pieces[:2] for token in ids[:2]][:2] == [bos, bos]
            out.append(pieces)
        return Encoded(pieces=out, straddled=straddled, duplicate_bos=doubled)


def _pieces(spans: Sequence[Span], ids: Sequence[np.ndarray]) -> list[tuple[int, Piece]]:
    return [(start, (tokens, _INDEX[source], on)) for (start, _, source, on), tokens in zip(spans, ids, strict=True) if len(tokens)]


def _cut(encoding: Any, position: int, length: int) -> Cut:
    """(The first token that starts at or after this character of `length`, whether no token covers characters on both sides of it.)"""
    while 0 < position < length:
        token = encoding.char_to_token(position)
        if token is not None:
            clean = encoding.token_to_chars(token)[0] >= position
            return (token, True) if clean else (token + 1, False)
        position += 1  # a character that the tokenizer drops
    return (len(encoding) if position else 0), True


def _offsets_backend(tokenizer: Any) -> Any:
    """The tokenizer's backend without a post-processor: some shorten offsets by a token's leading space. It also cuts and pads nothing."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = None
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend
