"""Texts to token ids, many at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from burnish.data.rows import DataError
from burnish.data.words import WordEncoder

SAMPLES = ("Hello, world", "  two  spaces\n\n and a line", "1234 naïve 東京 🙂", "a")
ANCHOR = "\n"


class TextEncoder:
    """A tokenizer's text side: ids without special tokens, and the special tokens a text begins and ends with.

    Three ways to the same ids, each several times faster than the one before: the tokenizer itself; its backend, on a copy
    without truncation and padding; word by word (`data/words.py`). The second is taken where it gives the ids of the first
    on `SAMPLES`, the third as `WordEncoder` says.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = backend_copy(tokenizer)
        if self._backend is not None and not _same(self._fast(SAMPLES), self._plain(SAMPLES)):
            self._backend = None
        self._words = None if self._backend is None else WordEncoder.for_backend(self._backend)
        self.eos_id: int | None = tokenizer.eos_token_id
        self.prefix = self._special_prefix()
        """Ids the tokenizer puts before a text, such as BOS."""
        alone, after, anchor = (ids.tolist() for ids in self._plain(["a", ANCHOR + "a", ANCHOR]))
        self._anchor = anchor if anchor + alone != after else None

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which need no transformers where there is a backend."""
        return {**cast(dict[str, Any], super().__getstate__()), "_tokenizer": self._tokenizer if self._backend is None else None}

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text, without special tokens other than those it spells out."""
        if not texts:
            return []
        if self._words is not None:
            found = self._words.encode(texts)
            if found is not None:
                return found
        return self._plain(texts) if self._backend is None else self._fast(texts)

    def encode_continuations(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text as it stands after another text.

        Some tokenizers put a space before whatever they encode; it belongs to the start of a document and not to a
        completion. There a text is encoded behind an anchor, whose ids are taken off again.
        """
        if self._anchor is None:
            return self.encode(texts)
        size = len(self._anchor)
        anchored = self.encode([ANCHOR + text for text in texts])
        merged = [i for i, ids in enumerate(anchored) if ids[:size].tolist() != self._anchor]
        found = [ids[size:] for ids in anchored]
        for i, ids in zip(merged, self.encode([texts[i] for i in merged]), strict=True):
            found[i] = ids
        return found

    def _fast(self, texts: Sequence[str]) -> list[np.ndarray]:
        assert self._backend is not None
        return [_ids(encoding.ids) for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _plain(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [_ids(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def _special_prefix(self) -> list[int]:
        plain, special = self._plain(["a"])[0].tolist(), list(self._tokenizer("a")["input_ids"])
        for start in range(len(special) - len(plain) + 1):
            if special[start : start + len(plain)] == plain:
                return special[:start]
        raise DataError(f"The tokenizer's special tokens do not stand around the text: 'a' is {plain} without and {special} with them.")


def _ids(ids: Sequence[int]) -> np.ndarray:
    return np.asarray(ids, dtype=np.int32)


def _same(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(map(np.array_equal, some, others))


def backend_copy(tokenizer: Any) -> Any | None:
    """The Rust tokenizer without truncation and padding, whatever earlier calls left there; None for a tokenizer without one."""
    if not tokenizer.is_fast:
        return None
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def tokenizer_identity(tokenizer: Any) -> str | None:
    """What decides a tokenizer's ids and its chat rendering, as text; None where that cannot be known (no fast backend)."""
    if not tokenizer.is_fast:
        return None
    import tokenizers
    import transformers

    backend = tokenizer.backend_tokenizer.to_str()
    backend = backend[backend.index('"added_tokens"') :]  # truncation and padding, which any call may change, stand before
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    versions = [tokenizers.__version__, transformers.__version__]
    return json.dumps([versions, backend, special, tokenizer.chat_template, tokenizer.split_special_tokens], sort_keys=True, default=str)
