"""A tokenizer's ids looked up word by word: natural text says the same words again and again.

Most byte-level tokenizers cut a text before every space that follows a character that is no white space, whatever stands
around it, and never look across such a cut. For those (`PATTERNS`), ids of a text are the ids of its words, put one after the
other, and a word seen before need not be encoded again: some ten times faster than encoding every text. Whatever is not
known to be so is encoded whole; `tests/data/test_words.py` compares the two on hostile text for each pattern.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence, Sized
from itertools import islice, pairwise, permutations
from typing import Any, cast

import numpy as np

ROW, CUT = "\x01", "\x00"
ROW_ID = -1
SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]  # U+3000 is the last
ASCII_SPACES = [space for space in SPACES if space.isascii()]
MEMORY = 1 << 22
"""Characters of words remembered before all are forgotten: half a million words, in about a hundred megabytes."""
COMPARED = 50
"""Texts encoded both ways, to begin with."""

_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"

PATTERNS = frozenset(
    {
        rf"{_SUFFIX}|{_LETTERS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_END}",  # Llama 3
        rf"{_SUFFIX}|{_LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_END}",  # Qwen 2, 2.5, 3
        rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*{_END}",  # Qwen 3.5
        rf"{_UPPER}|{_LOWER}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_END}",  # Mistral's Tekken
        rf"{_UPPER}{_SUFFIX}?|{_LOWER}{_SUFFIX}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_END}",  # GPT-4o, GPT-OSS
    }
)
r"""Patterns of pre-tokenizers in which a space can only be the first character of a match, or follow white space in it, and in
which nothing looks ahead from a character that is no white space. Each has the alternatives of GPT-2's own pattern, which is
built into `ByteLevel`: letters, digits or other characters with at most one character before them, and white space."""


Cut = tuple[int, bool]
"""(The first token at or after a character, whether no token covers characters on both sides of it.)"""


class WordEncoder:
    """Ids of texts from ids of words. `for_backend` says for which tokenizers.

    The first texts are also encoded whole: should the ids differ all the same, every text is from then on.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._forget()
        self._compared = self._differs = False
        self._added: dict[str, list[Any]] = defaultdict(list)
        for token in backend.get_added_tokens_decoder().values():
            self._added[token.content[:8]].append(token)
        self._normalises = backend.normalizer is not None
        self._separable: dict[tuple[str, ...], bool] = {}

    @classmethod
    def for_backend(cls, backend: Any) -> WordEncoder | None:
        """None unless the tokenizer is known to cut before every space that follows a character that is no white space."""
        from tokenizers.models import BPE

        random = isinstance(backend.model, BPE) and backend.model.dropout is not None
        normal = _settings(backend.normalizer) in (None, {"type": "NFC"})  # nothing composes with a space
        known = normal and not random and _cuts_at_spaces(_settings(backend.pre_tokenizer))
        return cls(backend) if known and not backend.encode_special_tokens else None

    def encode(self, texts: Sequence[str]) -> list[np.ndarray] | None:
        """int32 ids of each text; None where these texts have to be encoded whole."""
        words = self._words(texts)
        return None if words is None else self._put_together(texts, self._ids_of(words))

    def encode_with_cuts(
        self, texts: Sequence[str], places: Sequence[Sequence[int]], find: Callable[[Any, int, int], Cut]
    ) -> list[tuple[np.ndarray, list[Cut]]] | None:
        """int32 ids of each text, and the cut at each of its `places` (characters); None where texts have to be encoded whole.

        `find` finds a cut within a word, from the word's encoding, the place and the word's length.
        """
        words = self._words(texts)
        if words is None:
            return None
        parts = self._ids_of(words)
        ids = self._put_together(texts, parts)
        if ids is None:
            return None
        character, token = _starts(words), _starts(parts) // ids[0].itemsize
        row_character, row_token = (_starts(rows) + np.arange(len(rows) + 1) for rows in (texts, ids))
        place = np.asarray([start + at for start, row in zip(row_character.tolist(), places, strict=False) for at in row])
        word = np.searchsorted(character, place, side="right") - 1
        found = [(first, True) for first in token[word].tolist()]
        for i in np.flatnonzero(place > character[word]).tolist():
            tokens, clean = self._cut_within(words[word[i]], int(place[i] - character[word[i]]), find)
            found[i] = (found[i][0] + tokens, clean)
        made = iter(found)
        cuts = (
            [(at - start, clean) for at, clean in islice(made, len(row))] for start, row in zip(row_token.tolist(), places, strict=False)
        )
        return list(zip(ids, cuts, strict=True))

    def _ids_of(self, words: Sequence[str]) -> list[bytes]:
        if self._characters > MEMORY:
            self._forget()
        known = list(map(self._ids.get, words))
        if None not in known:
            return cast(list[bytes], known)
        self._learn({word for word, ids in zip(words, known, strict=True) if ids is None})
        return list(map(self._ids.__getitem__, words))

    def _learn(self, words: set[str]) -> None:
        new = sorted(words)
        for word, encoding in zip(new, self._backend.encode_batch_fast(new, add_special_tokens=False), strict=True):
            self._ids[word] = np.asarray(encoding.ids, dtype=np.int32).tobytes()
        self._characters += sum(map(len, new))

    def _put_together(self, texts: Sequence[str], parts: Sequence[bytes]) -> list[np.ndarray] | None:
        """Ids of each text; None where, on the first texts, they are not those of the whole texts."""
        ids = np.frombuffer(b"".join(parts), dtype=np.int32)
        rows = [ids[a + 1 : b] for a, b in pairwise((-1, *np.flatnonzero(ids == ROW_ID).tolist()))]
        if not self._compared:
            self._compared = True
            whole = self._backend.encode_batch_fast(list(texts[:COMPARED]), add_special_tokens=False)
            self._differs = any(row.tolist() != encoding.ids for row, encoding in zip(rows, whole, strict=False))
        return None if self._differs else rows

    def _cut_within(self, word: str, place: int, find: Callable[[Any, int, int], Cut]) -> Cut:
        if (word, place) not in self._within:
            self._within[word, place] = find(self._backend.encode(word, add_special_tokens=False), place, len(word))
        return self._within[word, place]

    def _words(self, texts: Sequence[str]) -> list[str] | None:
        """The words of all texts, a `ROW` after those of each. Put end to end they are the texts."""
        together = ROW.join((*texts, ""))
        added = self._added_tokens(together)
        if self._differs or CUT in together or together.count(ROW) != len(texts) or not self._are_separable(added):
            return None
        cut = together.replace(" ", CUT + " ")
        for space in ASCII_SPACES if together.isascii() else SPACES:
            while space in together and space + CUT in cut:
                cut = cut.replace(space + CUT, space)
        for token in added:
            cut = cut.replace(token.content, CUT + token.content + CUT)
        return cut.replace(ROW, CUT + ROW + CUT).split(CUT)

    def _forget(self) -> None:
        self._ids = {ROW: np.int32(ROW_ID).tobytes()}
        self._within: dict[tuple[str, int], Cut] = {}
        self._characters = 0

    def _added_tokens(self, text: str) -> list[Any]:
        """The added tokens, special ones among them, that the text spells out."""
        return [token for start, tokens in self._added.items() if start in text for token in tokens if token.content in text]

    def _are_separable(self, tokens: Sequence[Any]) -> bool:
        """Whether each is found where it stands, whatever surrounds it."""
        key = tuple(token.content for token in tokens)
        if key not in self._separable:
            self._separable[key] = not any(
                token.lstrip or token.rstrip or token.single_word or " " in token.content or (token.normalized and self._normalises)
                for token in tokens
            ) and not any(_overlap(a, b) for a, b in permutations(key, 2))
        return self._separable[key]


def _starts(parts: Sequence[Sized]) -> np.ndarray:
    """Where each part starts when they are put end to end, and where the last one ends."""
    return np.concatenate(([0], np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)))))


def _overlap(first: str, second: str) -> bool:
    return second in first or any(first.endswith(second[:size]) for size in range(1, len(second)))


def _settings(part: Any | None) -> dict[str, Any] | None:
    return None if part is None else json.loads(part.__getstate__())


def _cuts_at_spaces(pre_tokenizer: dict[str, Any] | None) -> bool:
    parts = pre_tokenizer["pretokenizers"] if pre_tokenizer and pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    return all(map(_is_known, parts)) and any(map(_cuts, parts))


def _is_known(part: dict[str, Any] | None) -> bool:
    if part is None:
        return False
    if part["type"] == "ByteLevel":
        return not part["add_prefix_space"]
    return part["type"] == "Digits" or _cuts(part)


def _cuts(part: dict[str, Any]) -> bool:
    if part["type"] == "ByteLevel":
        return part["use_regex"]
    return part["type"] == "Split" and part["pattern"].get("Regex") in PATTERNS and part["behavior"] == "Isolated" and not part["invert"]
