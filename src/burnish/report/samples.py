"""Everything that was sampled: `samples/00000.jsonl.gz` and so on, one JSON object per completion.

    step, set         optimizer steps done when it was sampled; "train", or the evaluation set
    group, sample     the row that was the prompt; which of its completions
    prompt, prompt_tokens, completion, finish_reason
    tokens            ids after the prompt, and beside them, one for each: logp (null where the policy did not say it), sampled_logp (null
                      where that is the same; else of the distribution it was drawn from), trained (0 or 1), and, where the reference was
                      asked before anything was learnt, ref_logp (null where it was not)
    rewards, reward   by function (null: nothing to say; {"failure": …}), and their weighted sum (null: none)
    advantage, version, extras

A step is one gzip member, so that a resumed run can cut the file where its checkpoint was written.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.report.memory import note_memory
from burnish.report.metrics import MetricsError

if TYPE_CHECKING:
    import rich.console

FOLDER = "samples"
LARGEST = 64 * 2**20
"""Bytes, after which the next file is begun."""


class SampleFiles:
    """Appends; a checkpoint notes `place`, and `cut` goes back there. Raises MetricsError where that cannot be done."""

    def __init__(self, output_dir: Path, *, largest: int = LARGEST) -> None:
        self.folder, self._largest = output_dir / FOLDER, largest
        self.place = (0, 0)
        """Number of the file, bytes of it."""

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """One member of the lines of one step. What was sampled for it is in memory now, which is noted."""
        lines = list(lines)
        text = "".join(json.dumps(line, ensure_ascii=False, default=_plain) + "\n" for line in lines)
        content = gzip.compress(text.encode("utf-8", "backslashreplace"), mtime=0)  # half a surrogate pair as JSON may write it
        number, size = self.place
        if size and size + len(content) > self._largest:
            number, size = number + 1, 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file(number).open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MetricsError(f"{self._file(number)} cannot be written ({error.strerror}); free some space and start again.") from error
        self.place = (number, size + len(content))
        if lines:
            note_memory(self.folder.parent, lines[0].get("step", 0), "sampling")

    def cut(self, place: tuple[int, int]) -> None:
        """Nothing is left of what was appended after `place`."""
        number, size = place
        for path in sorted(self.folder.glob("*.jsonl.gz")):
            if int(path.name.split(".")[0]) > number:
                path.unlink()
        path = self._file(number)
        there = path.stat().st_size if path.exists() else 0
        if there < size:
            raise MetricsError(f"{path} has {there:,} bytes, and the checkpoint was written when it had {size:,}; put the original back.")
        if path.exists():
            os.truncate(path, size)
        self.place = place

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05}.jsonl.gz"


def read_samples(output_dir: Path | str) -> Iterator[dict[str, Any]]:
    """All lines in order. Of a file that ends in a torn member, of a process that died while it wrote, what is whole."""
    for path in sorted((Path(output_dir) / FOLDER).glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            try:
                for line in file:
                    yield json.loads(line)
            except (EOFError, ValueError, gzip.BadGzipFile, zlib.error):
                continue


def show_samples(lines: Sequence[Mapping[str, Any]], console: rich.console.Console, count: int) -> None:
    """Prints the first `count` of one prompt's lines: what was asked once, then each answer with its reward and its advantage."""
    from rich.table import Table
    from rich.text import Text

    group = [line for line in lines if line["group"] == lines[0]["group"]][:count]
    table = Table("reward", "advantage", "completion", title=Text(_said(group[0]["prompt"])), title_justify="left", expand=True)
    for line in group:
        reward, advantage = ("none" if line[name] is None else f"{line[name]:.3g}" for name in ("reward", "advantage"))
        table.add_row(reward, advantage, Text(_said(line["completion"])))
    console.print(table)


def _said(said: Any) -> str:
    """Messages as one text, as a terminal may show it."""
    from burnish.report.tokens import visible

    return visible(said if isinstance(said, str) else "\n".join(f"{one['role']}: {one.get('content')}" for one in said))


def _plain(value: Any) -> Any:
    return value.tolist() if type(value).__module__ == "numpy" else str(value)
