"""What a run's folder says of it: how it went, what it was told, what became of its rows, what happened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from burnish.config.base import options
from burnish.config.values import ConfigError
from burnish.report.events import EVENTS, read_events
from burnish.report.memory import MEMORY, peaks_of
from burnish.report.page.samples import plain
from burnish.report.sessions import Event, sessions, since_anew, status, total_seconds

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
    events = since_anew(read_events(folder / EVENTS) if (folder / EVENTS).is_file() else [])
    config, config_fault = _config(folder / "resolved.yaml")
    method, defaults = _method(config, _commanded(events))
    missing = [config_fault] if config_fault else []
    if not events:
        missing.append("There is no events.jsonl: when it began and how it ended is not known.")
    head = {
        "folder": str(folder.absolute()),
        "method": method,
        "model": str(config.get("model_name_or_path") or ""),
        "status": status(folder, events),
        "seconds": total_seconds(folder, events),
        "config": config,
        "defaults": defaults,
        "environment": _json(folder / "environment.json"),
        "data": _json(folder / "data.json"),
        "events": events,
        "memory": peaks_of(folder / MEMORY),
        "missing": missing,
    }
    return {name: plain(value) for name, value in head.items()}


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
    commands = [command for one in sessions(events) if isinstance(command := one.start.get("command"), list)]
    return commands[-1][1] if commands and len(commands[-1]) > 1 and commands[-1][1] in METHODS else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
