"""memory.jsonl: how much memory a run had when each of its phases was over, one JSON object a line.

`step`, `time` (seconds since the epoch), `phase` ("sampling", "training" or the name of an evaluation set) and `bytes`, as
`console.memory_bytes` has them: the most that a GPU had until then, or the process's resident set at that moment.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from burnish.report.console import memory_bytes

MEMORY = "memory.jsonl"


def note_memory(folder: Path, step: int, phase: str) -> None:
    """Appends a line. A run does not end because this cannot be written."""
    line = {"step": step, "time": round(time.time(), 3), "phase": phase, "bytes": memory_bytes()}
    with suppress(OSError), open(folder / MEMORY, "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")


def peaks_of(path: Path) -> list[dict[str, Any]]:
    """Of each phase the line with most bytes, in the order in which phases came; none where there is no such file."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):
            one = json.loads(line)
            phase, size = str(one["phase"]), int(one["bytes"])
            if size > found.setdefault(phase, one)["bytes"]:
                found[phase] = one
    return list(found.values())
