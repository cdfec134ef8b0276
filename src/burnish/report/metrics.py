"""metrics.jsonl: one JSON object per line. It is the truth; trackers and consoles are views."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""JSON has no such numbers: they are written as these strings and read back as floats."""


class MetricsError(ValueError):
    """metrics.jsonl cannot be written, or is not what the checkpoint says. One sentence."""


class MetricsFile:
    """Appends lines; knows how many bytes belong to a checkpoint, so that a resumed run neither loses nor doubles one."""

    def __init__(self, path: Path) -> None:
        """Opens for appending, creating folders. For a new run call `truncate(0)`, for a resumed one `truncate(offset)`.

        Raises:
            MetricsError: it may not be written to.
        """
        self.path = path
        with self._writable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")

    def append(self, line: Mapping[str, Any]) -> None:
        """Write and flush one line. NaN and infinities become strings (`NON_FINITE`), scalars of NumPy and torch numbers.

        Raises:
            MetricsError: the disk is full.
        """
        with self._writable():
            self._file.write(json.dumps(plain(line), allow_nan=False, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Flush and fsync; returns the size in bytes, which a checkpoint stores as its `metrics_offset`.

        Raises:
            MetricsError: the disk is full.
        """
        with self._writable():
            self._file.flush()
            os.fsync(self._file.fileno())
        return self.path.stat().st_size

    def truncate(self, offset: int) -> int:
        """Cut the file to `offset` bytes; returns how many lines (a torn one counts) went.

        Raises:
            MetricsError: the file is shorter than `offset`, or `offset` is inside a line.
        """
        content = self.path.read_bytes()
        if len(content) < offset:
            raise MetricsError(
                f"{self.path} has {len(content):,} bytes, but the checkpoint was written when it had {offset:,}; "
                "put the missing lines back, or start over in another output_dir."
            )
        if offset and content[offset - 1 : offset] != b"\n":
            raise MetricsError(
                f"{self.path} was changed: no line ends at byte {offset:,}, where the checkpoint's last one did; "
                "put the original back, or start over in another output_dir."
            )
        self._file.truncate(offset)
        return len(content[offset:].splitlines())

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "see who may write there"
            raise MetricsError(
                f"{self.path} cannot be written ({error.strerror}); {remedy} and start the same command again, "
                "which continues from the last checkpoint."
            ) from error

    def close(self) -> None:
        # Every line was flushed, or its flush has raised already: what is left in the buffer is the part that has no room.
        with suppress(OSError):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines, in order. A torn last line (the process died while writing it) is left out.

    Raises:
        MetricsError: any other line is no JSON object.
    """
    *lines, _torn = path.read_bytes().split(b"\n")
    metrics = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            metrics.append({name: NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in values.items()})
        except (ValueError, AttributeError):
            raise MetricsError(f"Line {number} of {path} is no JSON object; delete it to read the others.") from None
    return metrics


def plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite as strings, those of NumPy and torch as Python's."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    return plain(value.item())
