"""A file of short rows, streamed through what makes examples of them.

Memory is the process's own: without the pages of the file, which the system maps and may drop. It is looked at on the way, and after that
the most that was ever resident less those pages counts, where it is more: opening a file may have taken more than reading it.

Specification: `{"rows": their number, "model": folder of a tokenizer, "threads": …}`. The file is made here and deleted.
"""

from __future__ import annotations

import random
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from bench.subjects.inside import Answer, clocks, peak_bytes, serve, since, status_bytes
from bench.subjects.preparation import WORDS
from burnish.data.prepare_stream import prepare_stream
from burnish.data.readers import PrepareOptions
from burnish.data.sources import open_rows

EVERY = 1000
"""Rows between two looks at the memory."""


def write_rows(path: Path, count: int) -> None:
    """Rows of about 64 bytes: a million pairs of phrases."""
    draw, words = random.Random(0), WORDS.split()
    phrases = [" ".join(draw.choices(words, k=5))[:24].ljust(24, "e") for _ in range(1000)]
    with path.open("w") as file:
        file.writelines(f'{{"text": "{phrases[i % 1000]} {phrases[i // 1000 % 1000]}"}}\n' for i in range(count))


def run(spec: dict[str, Any]) -> Answer:
    with tempfile.TemporaryDirectory(prefix="bench-stream-") as folder:
        path = Path(folder, "rows.jsonl")
        write_rows(path, spec["rows"])
        tokenizer = AutoTokenizer.from_pretrained(spec["model"])
        start, most = clocks(), 0
        stream = prepare_stream(open_rows(str(path), streaming=True), tokenizer, PrepareOptions(max_length=64), seed=0)
        for count, _ in enumerate(islice(stream.open_at((0, 0)), spec["rows"])):
            if not count % EVERY:
                most = max(most, status_bytes("RssAnon"))
        cpu, _ = since(start)
        own = max(most, peak_bytes() - status_bytes("RssFile"))
        return {
            "measures": {"own_bytes": [own], "cpu_s": [cpu], "peak_bytes": [peak_bytes()]},
            "facts": {"file_bytes": path.stat().st_size},
        }


if __name__ == "__main__":
    serve(run)
