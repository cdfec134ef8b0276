"""metrics.jsonl: one JSON object per line. It is the truth; trackers and consoles are views."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsFile:
    """Appends lines; knows how many bytes belong to a checkpoint, so that a resumed run neither loses nor doubles one."""

    def __init__(self, path: Path) -> None:
        """Opens for appending, creating folders. For a new run call `truncate(0)`, for a resumed one `truncate(offset)`."""
        raise NotImplementedError

    def append(self, line: Mapping[str, Any]) -> None:
        """Write and flush one line. NaN and infinities become the strings "nan", "inf", "-inf"; numpy and torch scalars numbers."""
        raise NotImplementedError

    def sync(self) -> int:
        """Flush and fsync; returns the size in bytes, which a checkpoint stores as its `metrics_offset`."""
        raise NotImplementedError

    def truncate(self, offset: int) -> int:
        """Cut the file to `offset` bytes; returns how many lines (a torn one counts) went.

        Raises:
            ValueError: the file is shorter than `offset`, or `offset` is inside a line.
        """
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines, in order. A torn last line (the process died while writing it) is left out; any other bad line raises ValueError."""
    raise NotImplementedError
