"""Texts to token ids, many at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from burnish.data.rows import DataError

SAMPLES = ("Hello, world", "  two  spaces\n\n and a line", "1234 naïve 東京 🙂", "a")
ANCHOR = "\n"


class TextEncoder:
    """A tokenizer's text side: ids without special tokens, and the special tokens a text begins and ends with.

    A fast tokenizer's backend is called directly, on a copy without truncation and padding, which is about twice as fast
    as calling the tokenizer; where a sample shows that the ids would differ, the tokenizer is called.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = _backend_copy(tokenizer)
        if self._backend is not None and self._fast(SAMPLES) != self._plain(SAMPLES):
            self._backend = None
        self.eos_id: int | None = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        self.prefix = self._special_prefix()
        """Ids the tokenizer puts before a text, such as BOS."""
        alone, after, anchor = self.encode(["a", ANCHOR + "a", ANCHOR])
        self._anchor = anchor if anchor + alone != after else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens other than those it spells out."""
        return self._plain(texts) if self._backend is None else self._fast(texts)

    def encode_continuations(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as it stands after another text.

        Some tokenizers put a space before whatever they encode; it belongs to the start of a document and not to a
        completion. There a text is encoded behind an anchor, whose ids are taken off again.
        """
        if self._anchor is None:
            return self.encode(texts)
        anchored = self.encode([ANCHOR + text for text in texts])
        size = len(self._anchor)
        merged = [i for i, ids in enumerate(anchored) if ids[:size] != self._anchor]
        found = [ids[size:] for ids in anchored]
        for i, ids in zip(merged, self.encode([texts[i] for i in merged]), strict=True):
            found[i] = ids
        return found

    def _fast(self, texts: Sequence[str]) -> list[list[int]]:
        assert self._backend is not None
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def _special_prefix(self) -> list[int]:
        plain, special = self._plain(["a"])[0], list(self._tokenizer("a")["input_ids"])
        for start in range(len(special) - len(plain) + 1):
            if special[start : start + len(plain)] == plain:
                return special[:start]
        raise DataError(f"The tokenizer's special tokens do not stand around the text: 'a' is {plain} without and {special} with them.")


def _backend_copy(tokenizer: Any) -> Any | None:
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
    import tokenizers
    import transformers

    backend = _backend_copy(tokenizer)
    if backend is None:
        return None
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    versions = [tokenizers.__version__, transformers.__version__]
    return json.dumps(
        [versions, backend.to_str(), special, tokenizer.chat_template, tokenizer.split_special_tokens], sort_keys=True, default=str
    )
