"""A tokenizer's ids looked up word by word: natural text says the same words again and again.

Most byte-level tokenizers cut a text before every space that follows a character that is no white space, whatever stands
around it, and never look across such a cut. For those (`PATTERNS`), ids of a text are the ids of its words, put one after the
other, and a word seen before need not be encoded again: some ten times faster than encoding every text. Whatever is not
known to be so is encoded whole; `tests/data/test_words.py` compares the two on hostile text for each pattern.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Any

import numpy as np

ROW, CUT = "\x01", "\x00"
ROW_ID = -1
ROW_BYTES = np.int32(ROW_ID).tobytes()
SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]  # U+3000 is the last
MEMORY = 1 << 26
"""Characters of words remembered before all are forgotten."""

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


class WordEncoder:
    """Ids of texts from ids of words. `for_backend` says for which tokenizers."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._ids = {ROW: ROW_BYTES}
        self._characters = 0
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
        together = ROW.join(texts)
        added = self._added_tokens(together)
        if CUT in together or together.count(ROW) != len(texts) - 1 or not self._are_separable(added):
            return None
        cut = together.replace(" ", CUT + " ")
        for space in SPACES:
            while space in together and space + CUT in cut:
                cut = cut.replace(space + CUT, space)
        for token in added:
            cut = cut.replace(token.content, CUT + token.content + CUT)
        words = cut.replace(ROW, CUT + ROW + CUT).split(CUT)
        self._learn(set(words))
        ids = np.frombuffer(b"".join(map(self._ids.__getitem__, words)), dtype=np.int32)
        ends = np.flatnonzero(ids == ROW_ID)
        return [ids[a + 1 : b] for a, b in pairwise((-1, *ends.tolist(), len(ids)))]

    def _learn(self, words: set[str]) -> None:
        if self._characters > MEMORY:
            self._ids, self._characters = {ROW: ROW_BYTES}, 0
        new = [word for word in words if word not in self._ids]
        for word, encoding in zip(new, self._backend.encode_batch_fast(new, add_special_tokens=False), strict=True):
            self._ids[word] = np.asarray(encoding.ids, dtype=np.int32).tobytes()
        self._characters += sum(map(len, new))

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
