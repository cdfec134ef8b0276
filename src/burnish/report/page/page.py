"""Puts runs into one HTML file. Everything that a run says is in it as gzip in base64, in which no markup can be."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from burnish.report.compare import seconds
from burnish.report.page.runs import PageError, check_run, head_of, names_of
from burnish.report.page.samples import parts_since, torn
from burnish.report.page.series import Adviser, series_of
from burnish.report.page.tail import Place, lines_since
from burnish.report.page.vocabulary import find_vocabulary

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("uPlot.iife.min.js",)
"""As they are; then the page's own, which share one scope."""
OWN = ("tools.js", "data.js", "charts.js", "curves.js", "overview.js", "list.js", "sample.js", "samples.js", "sections.js", "main.js")
STYLES = ("uPlot.min.css", "report.css")


def write_report(runs: Sequence[Path | str], output: Path | str) -> Path:
    """Writes one self-contained HTML file about `runs`, folders of trainings, and returns its path.

    Raises:
        PageError: a folder is no run's or cannot be read, which is found before anything is written; or the file cannot be written.
    """
    folders, path = [Path(run) for run in runs], Path(output)
    if not folders:
        raise PageError("No run is named; give the output_dir of one training or of several.")
    for folder in folders:
        check_run(folder)
    if path.is_dir():
        raise PageError(f"output={str(output)!r} is a folder; name a file, such as {path / 'report.html'}.")
    try:
        content = page_of(folders)
    except OSError as error:
        raise PageError(f"{error.filename or 'A file of a run'} cannot be read ({error.strerror}); see who may read it.") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            whole.write_text(content, encoding="utf-8", errors="backslashreplace")
            whole.replace(path)
        finally:
            whole.unlink(missing_ok=True)
    except OSError as error:
        raise PageError(f"The report {path} cannot be written ({error.strerror}); name another file with --output.") from error
    return path


def page_of(folders: Sequence[Path], *, live: bool = False) -> str:
    """The page as text. A `live` one asks its server for what the others bring with them."""
    names = names_of(folders)
    blocks = [] if live else [block for number, folder in enumerate(folders) for block in _blocks(number, folder)]
    blocks.append(_block("runs", {"names": names, "live": live}))
    style = "\n".join(_asset(name) for name in STYLES)
    scripts = [*map(_asset, SCRIPTS), "(() => {\n'use strict';\n" + "\n".join(map(_asset, OWN)) + "\n})();\n"]
    asks = "'self'" if live else "'none'"
    allowed = f"style-src {_hashes([style])}; script-src {_hashes(scripts)}; connect-src {asks}"
    return Template(_asset("report.html")).substitute(
        policy=f"default-src 'none'; img-src data:; {allowed}; base-uri 'none'; form-action 'none'",
        title=html.escape(f"{', '.join(names)} · Burnish"),
        style=style,
        blocks="\n".join(blocks),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def record_of(folder: Path) -> dict[str, Any]:
    """All of a run but its samples: `runs.head_of`, its `series`, the `advice` on them and the `phases` of its time."""
    lines, _, _ = lines_since(folder / "metrics.jsonl", Place())
    head = head_of(folder)
    if not lines:
        head["missing"].append("There is no metrics.jsonl, or no whole line in it: nothing was logged yet.")
    return head | {"series": series_of(lines), "advice": Adviser().of(lines), "phases": phases_of(head, lines)}


def phases_of(head: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of sampling, scoring, training and evaluation, as `compare.seconds` has them, and of saving, in all of its events."""
    saves = [event.get("seconds") or 0.0 for event in head["events"] if event.get("event") == "save"]
    numbers = ({name: value for name, value in line.items() if isinstance(value, int | float)} for line in lines)
    known = [line for line in numbers if "step" in line and ("num_tokens" in line or "tokens_per_second" not in line)]
    return seconds(known, head["config"]) | {"saving": math.fsum(saves)}


def _blocks(number: int, folder: Path) -> list[str]:
    record, blocks, index, ids, read = record_of(folder), list[str](), list[Any](), set[int](), dict[int, Place]()
    for part in parts_since(folder, Place()):
        name = f"{number}-{len(index)}"
        index.append(part.index)
        ids |= part.ids
        read[part.after.file] = part.after
        blocks += [_block(f"text-{name}", part.text), _block(f"tokens-{name}", part.tokens)]
    record["missing"] += torn(folder, read)
    if index:
        vocabulary, fault = find_vocabulary(folder, record["model"])
        record["tokenizer"] = fault or None
        blocks.append(_block(f"vocabulary-{number}", vocabulary.of(ids) if vocabulary else None))
    return [_block(f"run-{number}", record), _block(f"index-{number}", index), *blocks]


def packed(content: Any) -> bytes:
    """JSON in gzip. The same content gives the same bytes."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)
    return gzip.compress(text.encode("utf-8", "backslashreplace"), compresslevel=4, mtime=0)


def _block(name: str, content: Any) -> str:
    return f'<script type="text/plain" id="{name}">{base64.b64encode(packed(content)).decode()}</script>'


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hashes(contents: Sequence[str]) -> str:
    """For the page's policy: these scripts and styles run, and nothing else."""
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" for content in contents)
