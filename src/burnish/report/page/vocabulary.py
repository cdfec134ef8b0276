"""What each token says, so that a page can show them one by one: read from `tokenizer.json`, without a tokenizer library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

FILE = "tokenizer.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """A token is bytes, and may end in the middle of a character: only a row of them is text."""

    tokens: Mapping[int, str]
    """Token id → its bytes, each as the character of that number (latin-1)."""
    special: frozenset[int]
    path: str

    def of(self, ids: set[int] | None = None) -> dict[str, Any]:
        """Plain data; of these ids alone where they are given."""
        return {
            "tokens": {str(one): text for one, text in self.tokens.items() if ids is None or one in ids},
            "special": sorted(one for one in self.special if ids is None or one in ids),
            "path": self.path,
        }


def find_vocabulary(folder: Path, model: str) -> tuple[Vocabulary | None, str]:
    """That of the run's folder, its newest checkpoint, its model's folder or the model's place in the hub's cache; nothing is fetched.

    Without one, a sentence says where it was looked for.
    """
    for path in _places(folder, model):
        if path.is_file():
            try:
                return _read(path, path.stat().st_mtime_ns), ""
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return None, f"Tokens cannot be shown one by one: {path} cannot be read ({type(error).__name__}: {error})."
    named = f" nor in {model}" if model else ""
    return None, f"Tokens cannot be shown one by one: there is no {FILE} in the run's folder{named}."


def _places(folder: Path, model: str) -> Iterator[Path]:
    yield folder / FILE
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    yield from (path / FILE for path in sorted(checkpoints, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True))
    if not model:
        return
    yield Path(model).expanduser() / FILE
    if HUB_ID.fullmatch(model) and not Path(model).exists():
        from huggingface_hub import try_to_load_from_cache

        with suppress(ValueError):  # it has names that look like these and that it refuses, such as a--b
            if isinstance(cached := try_to_load_from_cache(model, FILE), str):
                yield Path(cached)


@lru_cache(maxsize=4)  # a page that is served asks every few seconds
def _read(path: Path, changed_ns: int) -> Vocabulary:
    content = json.loads(path.read_text(encoding="utf-8"))
    said, model = json.dumps(content.get("decoder"), ensure_ascii=False), content["model"]
    vocabulary = model["vocab"]
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((entry[0], number) for number, entry in enumerate(vocabulary))
    if '"ByteLevel"' in said:
        say = _of_byte_level
    elif "▁" in said or '"Metaspace"' in said or '"ByteFallback"' in said:
        say = _of_metaspace
    elif '"WordPiece"' in said:
        say = _of_word_piece
    else:
        say = _utf8
    tokens = {number: say(token) for token, number in pairs}
    added = content.get("added_tokens") or []
    tokens |= {one["id"]: _utf8(one["content"]) for one in added}
    return Vocabulary(tokens=tokens, special=frozenset(one["id"] for one in added if one.get("special")), path=str(path))


def _utf8(token: str) -> str:
    return token.encode("utf-8", "replace").decode("latin-1")


def _of_byte_level(token: str) -> str:
    table = _bytes_of_characters()
    return "".join(table.get(char) or _utf8(char) for char in token)


def _of_metaspace(token: str) -> str:
    byte = BYTE.fullmatch(token)
    return chr(int(byte.group(1), 16)) if byte else _utf8(token.replace("▁", " "))


def _of_word_piece(token: str) -> str:
    return _utf8(token.removeprefix("##") if token.startswith("##") else f" {token}")


@cache
def _bytes_of_characters() -> dict[str, str]:
    """The characters by which byte-level vocabularies write bytes (Radford et al. 2019): printable ones stand for themselves, the others
    are numbered from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): chr(byte) for byte in printable} | {chr(256 + i): chr(byte) for i, byte in enumerate(others)}
