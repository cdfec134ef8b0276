"""What a run sampled, in parts that a page opens when they are asked for.

A part is some whole steps. It is an `index`, which lists and filters need; `text`, which is searched; and `tokens`, by which one sample is
shown. Columns have one entry for each sample; a name that occurs often is a number into the part's own table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from burnish.report.page.tail import Place, members_since
from burnish.report.samples import FOLDER

SAMPLES, TOKENS = 1000, 200_000
"""After so many a part ends, with the step that is at hand."""
SHOWN = 110
"""Characters of a text that the index holds."""
NATS = 10_000
"""Log-probs are whole numbers of ten-thousandths, as they were written."""
Line = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Part:
    """Plain data."""

    index: dict[str, Any]
    text: dict[str, Any]
    tokens: dict[str, Any]
    ids: set[int]
    """The tokens that occur."""
    after: Place
    """Where the next part begins."""


@dataclass(slots=True)
class Table:
    """Names, and their numbers."""

    names: list[Any] = field(default_factory=list)
    _numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, name: Any) -> int:
        found = self._numbers.setdefault(name, len(self.names))
        if found == len(self.names):
            self.names.append(name)
        return found


def parts_since(folder: Path, place: Place) -> Iterator[Part]:
    """All of a run's samples after `place`, in order, as far as they are whole.

    Raises:
        ValueError: the samples before `place` are not those that were there.
    """
    paths = _files(folder)
    if place.offset and place.file not in paths:
        raise ValueError(f"{folder} has no file {place.file} of samples any more.")
    for number, path in paths.items():
        if number >= place.file:
            yield from _parts_of(path, place if number == place.file else Place(file=number))


def part_at(folder: Path, place: Place) -> Part | None:
    """The part that begins there: the same that `parts_since` gave, unless there was less of it."""
    return next(parts_since(folder, place), None)


def torn(folder: Path, read: Mapping[int, Place]) -> Iterator[str]:
    """A sentence for each file that ends in the middle of a step: the run is writing it, or was killed when it did.

    `read`: by the number of the file, where the last part of it ended.
    """
    for number, path in _files(folder).items():
        last = read.get(number, Place(file=number))
        end = max((after.offset for _, after in members_since(path, last)), default=last.offset)
        if end < (size := path.stat().st_size):
            yield f"{path.name} is whole up to byte {end:,} of {size:,}; what is after it is left out."


def _files(folder: Path) -> dict[int, Path]:
    """By their numbers, in order."""
    paths = {path.name.partition(".")[0]: path for path in (folder / FOLDER).glob("*.jsonl.gz")}
    return dict(sorted((int(number), path) for number, path in paths.items() if number.isdecimal()))


def _parts_of(path: Path, place: Place) -> Iterator[Part]:
    lines, tokens, after = list[Line](), 0, place
    for text, after in members_since(path, place):
        for line in map(_parsed, text.splitlines()):
            if line is not None:
                lines.append(line)
                tokens += len(line["tokens"])
        if len(lines) >= SAMPLES or tokens >= TOKENS:
            yield _part(lines, after)
            lines, tokens = [], 0
    if lines:
        yield _part(lines, after)


def _parsed(line: bytes) -> Line | None:
    """None for a line that is no sample: the report shows what there is."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    needed = {"step", "set", "group", "sample", "completion", "tokens", "logp", "trained"}
    return found if isinstance(found, dict) and needed <= found.keys() else None


def _part(lines: Sequence[Line], after: Place) -> Part:
    tables = {name: Table() for name in ("sets", "groups", "finishes", "reasons", "prompts", "asked")}
    index: dict[str, list[Any]] = {name: [] for name in INDEX}
    texts, tokens, ids = list[str](), list[dict[str, Any]](), set[int]()
    prompts = list[int]()
    for line in lines:
        said, prompt = said_of(line["completion"]), said_of(line.get("prompt", ""))
        row = _row(line, said, tables) | {"prompt": tables["prompts"].number(prompt)}
        for name in INDEX:
            index[name].append(row[name])
        texts.append(said)
        prompts.append(row["prompt"])
        asked = tuple(line.get("prompt_tokens") or ())
        ids.update(line["tokens"], asked)
        tokens.append(_tokens(line) | {"p": tables["asked"].number(asked)})
    named = {name: tables[name].names for name in ("sets", "groups", "finishes", "reasons")}
    shown = [_shown(prompt, end=True) for prompt in tables["prompts"].names]
    return Part(
        index={**named, **index, "prompts": shown},
        text={"prompts": tables["prompts"].names, "prompt": prompts, "text": texts},
        tokens={"asked": tables["asked"].names, "samples": tokens},
        ids=ids,
        after=after,
    )


INDEX = ("step", "set", "group", "sample", "reward", "advantage", "length", "finish", "reason", "prompt", "shown")


def _row(line: Line, said: str, tables: Mapping[str, Table]) -> dict[str, Any]:
    rewards = line.get("rewards") or {}
    failure = next((one for one in rewards.values() if isinstance(one, dict) and "failure" in one), None)
    return {
        "step": line["step"],
        "set": tables["sets"].number(str(line["set"])),
        "group": tables["groups"].number(str(line["group"])),
        "sample": line["sample"],
        "reward": _number(line.get("reward")),
        "advantage": _number(line.get("advantage")),
        "length": sum(line["trained"]),
        "finish": tables["finishes"].number(str(line.get("finish_reason"))),
        "reason": -1 if failure is None else tables["reasons"].number(str(failure["failure"])),
        "shown": _shown(said),
    }


def _tokens(line: Line) -> dict[str, Any]:
    """What is nothing, or what most have, is left out."""
    found = {
        "t": line["tokens"],
        "l": _nats(line["logp"]),
        "s": _nats(line.get("sampled_logp")),
        "f": _nats(line.get("ref_logp")),
        "m": None if all(line["trained"]) else [len(list(run)) for run in _runs(line["trained"])],
        "rewards": plain(line.get("rewards") or {}),
        "extras": plain(line.get("extras") or {}),
        "version": line.get("version"),
    }
    return {name: value for name, value in found.items() if value not in (None, {})}


def _runs(trained: Sequence[int]) -> Iterator[Iterable[int]]:
    """Runs of tokens of one kind; the first is of context, and may be empty."""
    if trained and trained[0]:
        yield ()
    for _, run in groupby(trained, bool):
        yield run


def _nats(logps: Sequence[float | None] | None) -> list[int | None] | None:
    if logps is None or all(one is None for one in logps):
        return None
    return [None if one is None or not math.isfinite(one) else round(one * NATS) for one in logps]


def said_of(text: Any) -> str:
    """Of messages, each after its role; of a single answer, what it says."""
    if not isinstance(text, list):
        return str(text)
    said = [_message(one) for one in text]
    return said[0][1] if len(said) == 1 and said[0][0] == "assistant" else "\n".join(f"{role}: {content}" for role, content in said)


def _message(one: Any) -> tuple[str, str]:
    if not isinstance(one, dict):
        return "", str(one)
    content = one.get("content")
    content = content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)
    calls = f" {json.dumps(one['tool_calls'], ensure_ascii=False)}" if one.get("tool_calls") else ""
    return str(one.get("role")), content + calls


def _shown(text: str, *, end: bool = False) -> str:
    """The beginning, or the end, in one line."""
    part = text[-4 * SHOWN :] if end else text[: 4 * SHOWN]
    line = " ".join(part.split())
    if len(line) <= SHOWN and len(part) == len(text):
        return line
    return f"…{line[-SHOWN:]}" if end else f"{line[:SHOWN]}…"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def plain(value: Any) -> Any:
    """Without what JSON has no word for: numbers that are not finite as text, and names that are none."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
