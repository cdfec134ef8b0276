"""What a run's folder says of it: how it went, what it was told, what became of its rows, what happened."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from burnish.config.base import options
from burnish.config.values import ConfigError
from burnish.report.events import EVENTS, read_events
from burnish.report.memory import MEMORY, peaks_of

METHODS = {
    "sft": "SFTConfig",
    "dpo": "DPOConfig",
    "kto": "KTOConfig",
    "orpo": "ORPOConfig",
    "cpo": "CPOConfig",
    "bco": "BCOConfig",
    "reward": "RewardConfig",
    "prm": "PRMConfig",
    "grpo": "GRPOConfig",
    "rloo": "RLOOConfig",
}
"""Command → its configuration, in the module of that name."""
FILES = ("metrics.jsonl", EVENTS, "resolved.yaml", "samples")
"""A folder with one of these is a run's."""
FOREIGN = 5
"""So many options that a method does not have may be of another version; of more it is another method's, one on trial say."""
ENDINGS = ("end", "failure", "signal", "refusal")
Event = Mapping[str, Any]


class PageError(ValueError):
    """A report cannot be made, or not be written. One sentence."""


def check_run(folder: Path) -> None:
    """Raises PageError where `folder` is no run's."""
    if not folder.is_dir():
        raise PageError(f"{folder} is no run: there is no such folder; give the output_dir of a training.")
    if not any((folder / name).exists() for name in FILES):
        raise PageError(f"{folder} is no run: it holds none of {', '.join(FILES)}; give the output_dir of a training.")


def names_of(folders: Sequence[Path]) -> list[str]:
    """What each run is called: the end of its path, as much of it as tells it from the others."""
    parts = [folder.absolute().parts for folder in folders]
    depth = 1
    while len({one[-depth:] for one in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(one[-depth:]) for one in parts]


def head_of(folder: Path) -> dict[str, Any]:
    """All of a run but its metrics and its samples, as plain data. What is not there is empty, and a sentence in `missing` says so."""
    events = read_events(folder / EVENTS) if (folder / EVENTS).is_file() else []
    config, config_fault = _config(folder / "resolved.yaml")
    method, defaults = _method(config, _commanded(events))
    missing = [config_fault] if config_fault else []
    if not events:
        missing.append("There is no events.jsonl: when it began and how it ended is not known.")
    return {
        "folder": str(folder.absolute()),
        "method": method,
        "model": str(config.get("model_name_or_path") or ""),
        "status": _status(folder, events),
        "seconds": _seconds(folder, events),
        "config": config,
        "defaults": defaults,
        "environment": _json(folder / "environment.json"),
        "data": _json(folder / "data.json"),
        "events": events,
        "memory": peaks_of(folder / MEMORY),
        "missing": missing,
    }


def _config(path: Path) -> tuple[dict[str, Any], str | None]:
    if not path.is_file():
        return {}, "There is no resolved.yaml: its options are not known."
    from burnish.config.yaml_file import load

    try:
        return load(path)[0], None
    except (ConfigError, UnicodeDecodeError) as error:
        return {}, f"Its options cannot be read: {error}"


def _method(config: Mapping[str, Any], commanded: str | None) -> tuple[str | None, dict[str, Any]]:
    """The method, and what its options are where nothing is said of them.

    The options do not name it. Where no command does either it is that which knows most of them, and of several the one with fewest others.
    """
    from burnish.config.data import DataConfig
    from burnish.config.model import ModelConfig

    best: tuple[tuple[int, int], str | None, dict[str, Any]] = ((FOREIGN + 1, 0), None, {})
    for method in [commanded] if commanded else METHODS if config else ():
        own = resolve_name(f"burnish.config.{method}:{METHODS[method]}")
        known = {name: one for cls in (ModelConfig, DataConfig, own) for name, one in options(cls).items()}
        distance = len(config.keys() - known), len(known.keys() - config)
        if distance < best[0]:
            best = distance, method, {name: None if one.required else one.default for name, one in known.items()}
    return best[1] or commanded, best[2]


def _commanded(events: Sequence[Event]) -> str | None:
    """By ``burnish grpo …``; a script says nothing of it."""
    commands = [event["command"] for event in events if event.get("event") == "start" and isinstance(event.get("command"), list)]
    return commands[-1][1] if commands and len(commands[-1]) > 1 and commands[-1][1] in METHODS else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# How it went


def _sessions(events: Sequence[Event]) -> Iterator[tuple[Event, Event | None, Event]]:
    """Each start with the event that ended it, if one did, and the last event of its process."""
    for number, start in enumerate(events):
        if start.get("event") != "start":
            continue
        mine = [start]
        for event in events[number + 1 :]:
            if event.get("pid") == start.get("pid"):
                if event.get("event") == "start":
                    break
                mine.append(event)
        yield start, next((event for event in mine if event.get("event") in ENDINGS), None), mine[-1]


def _status(folder: Path, events: Sequence[Event]) -> dict[str, str]:
    """`state` (finished, running, failed, stopped, killed, refused or unknown) and a sentence about it."""
    sessions = [one for one in _sessions(events) if one[1] is None or one[1].get("event") != "refusal"]
    if not sessions:
        if why := [str(event.get("why")) for event in events if event.get("event") == "refusal"]:
            return {"state": "refused", "said": why[-1]}
        return {"state": "unknown", "said": "It does not say how it went."}
    for start, end, _ in sessions:
        if end is None and _alive(start):
            return {"state": "running", "said": f"It is going on, as process {start.get('pid')}."}
    start, end, _ = sessions[-1]
    if end is None and start.get("host") != socket.gethostname() and time.time() - _touched(folder) < 600:
        return {"state": "running", "said": f"It seems to be going on, on {start.get('host')}: its files are minutes old."}
    if end is None:
        return {"state": "killed", "said": "It ended without a word: it was killed, or the machine went down."}
    if end["event"] == "end":
        return {"state": "finished", "said": f"All {end.get('step')} steps are done."}
    if end["event"] == "signal":
        return {"state": "stopped", "said": f"It was stopped by {end.get('signal')} after step {end.get('step')}."}
    return {"state": "failed", "said": str(end.get("why"))}


def _goes_on(events: Sequence[Event], start: Event) -> bool:
    """Whether it was continued from a checkpoint."""
    later = events[events.index(start) :]
    return any(event.get("event") == "resume" and event.get("pid") == start.get("pid") for event in later)


def _alive(start: Event) -> bool:
    """Whether the process that wrote it, on this machine, is there."""
    pid = start.get("pid")
    if start.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _touched(folder: Path) -> float:
    """When the run last wrote, in seconds since the epoch."""
    written = [folder / "metrics.jsonl", folder / EVENTS, *(folder / "samples").glob("*.jsonl.gz")]
    return max((path.stat().st_mtime for path in written if path.is_file()), default=0.0)


def _seconds(folder: Path, events: Sequence[Event]) -> float | None:
    """Over all starts since it was begun anew, from each to its end; to the last word of one that was killed."""
    total, found = 0.0, False
    sessions = list(_sessions(events))
    anew = [i for i, (start, end, _) in enumerate(sessions) if not _goes_on(events, start) and (end or {}).get("event") != "refusal"]
    sessions = sessions[anew[-1] :] if anew else sessions
    for start, end, last in sessions:
        begun, ended = _time(start), _time(end or last)
        if begun is None or ended is None or (end is not None and end.get("event") == "refusal"):
            continue
        if end is None:
            ended = time.time() if _alive(start) else max(ended, _touched(folder)) if start is sessions[-1][0] else ended
        total, found = total + max(0.0, ended - begun), True
    return round(total, 3) if found else None


def _time(event: Event) -> float | None:
    try:
        return datetime.fromisoformat(str(event.get("time"))).timestamp()
    except ValueError:
        return None
