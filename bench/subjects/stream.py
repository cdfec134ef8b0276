"""A file of short rows, streamed through what makes examples of them; memory and time are read on the way, after more and more rows.

Specification: `{"points": numbers of rows, "model": folder of a tokenizer, "threads": …}`. The file is made here and deleted.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from bench.subjects.inside import Answer, clocks, own_bytes, peak_bytes, serve, since
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
        write_rows(path, spec["points"][-1])
        tokenizer = AutoTokenizer.from_pretrained(spec["model"])
        start, most = clocks(), 0
        stream = prepare_stream(open_rows(str(path), streaming=True), tokenizer, PrepareOptions(max_length=64), seed=0)
        cpu, own, peak = [], [], []
        for count, _ in enumerate(stream.open_at((0, 0)), 1):
            if not count % EVERY:
                most = max(most, own_bytes())
            if count == spec["points"][len(own)]:
                cpu.append(since(start)[0])
                own.append(most)
                peak.append(peak_bytes())
                if count == spec["points"][-1]:
                    break
        return {"measures": {"own_bytes": own, "cpu_s": cpu, "peak_bytes": peak}, "facts": {"file_bytes": path.stat().st_size}}


if __name__ == "__main__":
    serve(run)
