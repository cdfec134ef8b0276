"""Files that grow: what is new in them since a place. A place that is not there any more, because the run was begun anew, is refused."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

BEFORE = 256
"""Bytes before a place by which it is known again."""
PIECE = 1 << 16
"""Bytes that are decompressed at once: what is left over of a piece is copied."""
PLACE = re.compile(r"([0-9]{1,6}):([0-9]{1,15}):([0-9]{1,10})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A number of bytes of a file, and a checksum of the last of them. As text ``"3:1024:99"``."""

    file: int = 0
    """Of `samples/`: which of its files."""
    offset: int = 0
    check: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}:{self.check}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError."""
        found = PLACE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no place in a file, such as 0:0:0.")
        file, offset, check = map(int, found.groups())
        return cls(file=file, offset=offset, check=check)

    def at(self, offset: int, before: bytes) -> Self:
        """A later one of the same file; `before` ends there."""
        return type(self)(file=self.file, offset=offset, check=zlib.crc32(before[-BEFORE:]))


def lines_since(path: Path, place: Place) -> tuple[list[dict[str, Any]], Place, bool]:
    """The JSON objects of the whole lines after `place`, the place after them, and whether it had to begin anew.

    Lines that are no JSON object are left out: the report shows what there is.
    """
    before, content, anew = _since(path, place)
    place = Place() if anew else place
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return [], place, anew
    objects = [found for line in whole.splitlines() if (found := _object(line)) is not None]
    return objects, place.at(place.offset + len(whole), before + whole), anew


def members_since(path: Path, place: Place) -> Iterator[tuple[bytes, Place]]:
    """What each whole gzip member after `place` holds, and the place after it. A torn or damaged one ends the file.

    Raises:
        ValueError: the file is not what it was at `place`.
    """
    before, content, anew = _since(path, place)
    if anew:
        raise ValueError(f"{path} is not what it was.")
    start = 0
    while (member := _member(content, start)) is not None:
        text, start = member
        last = content[max(0, start - BEFORE) : start]
        yield text, place.at(place.offset + start, (before + last)[-BEFORE:])


def _member(content: bytes, start: int) -> tuple[bytes, int] | None:
    """What the gzip member that begins there holds, and where it ends; None where it is not whole."""
    reader, parts = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), list[bytes]()
    for at in range(start, len(content), PIECE):
        piece = content[at : at + PIECE]
        try:
            parts.append(reader.decompress(piece))
        except zlib.error:
            return None
        if reader.eof:
            return b"".join(parts), at + len(piece) - len(reader.unused_data)
    return None


def _since(path: Path, place: Place) -> tuple[bytes, bytes, bool]:
    """The last bytes before `place` and all after it; or the whole file and True where `place` is not in it."""
    if not path.is_file():
        return b"", b"", place.offset > 0
    with path.open("rb") as file:
        begin = max(0, place.offset - BEFORE)
        file.seek(begin)
        before = file.read(place.offset - begin)
        if len(before) == place.offset - begin and zlib.crc32(before) == place.check:
            return before, file.read(), False
        file.seek(0)
        return b"", file.read(), True


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
