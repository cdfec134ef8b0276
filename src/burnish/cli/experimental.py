"""`burnish experimental`: methods on trial, found by their names on disk. No import names them, which import-linter proves."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

from burnish.cli.devices import SUPERVISOR, DevicesConfig, on_devices
from burnish.config.base import unknown
from burnish.config.data import DataConfig
from burnish.config.model import ModelConfig
from burnish.config.parse import parse
from burnish.config.processes import processes
from burnish.config.values import ConfigError


def run_experimental(args: Sequence[str]) -> int:
    """Lists the entries; or trains with the one that is named. Raises ConfigError for a name that is none."""
    incubator: Any = importlib.import_module("burnish.experimental")
    known = incubator.entries()
    if not args or args[0] in ("-h", "--help"):
        print(_list(incubator, known))
        return 0
    name = args[0]
    if name not in known:
        sentence = unknown("burnish experimental", name, known).replace("no option", "no entry")
        raise ConfigError(sentence if "nearest" in sentence else f"{sentence[:-1]}; burnish experimental lists those it has.")
    door = _open(name)
    config_class = importlib.import_module(f"{door.__name__}.config").CONFIG
    parts = {"devices": DevicesConfig, "model": ModelConfig, "data": DataConfig, "args": config_class}
    command = dataclasses.make_dataclass("ExperimentalCommand", parts.items(), frozen=True, kw_only=True)
    read = partial(parse, args[1:], command, prog=f"burnish experimental {name}", description=door.__doc__ or "")
    return on_devices(["experimental", *args], read, lambda: importlib.import_module(f"{door.__name__}.method").TRAINER)


def _open(name: str) -> Any:
    """The entry, imported; its warning becomes a line on stderr, where this command says what it has to say."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        door = importlib.import_module(f"burnish.experimental.{name}")
    if processes().rank == 0 and SUPERVISOR not in os.environ:
        for one in seen:
            print(f"warning: {one.message}", file=sys.stderr)
    return door


def _list(incubator: Any, known: Sequence[str]) -> str:
    if not known:
        return "No method is on trial."
    shown = [(name, incubator.status(name)) for name in known]
    lines = [f"  {name}  (owner: {of.owner}; expires on {of.expires})\n      {of.paper}" for name, of in shown]
    return "\n".join(
        ["usage: burnish experimental ENTRY [OPTIONS]", "", *lines, "", "burnish experimental ENTRY --help shows its options."]
    )
