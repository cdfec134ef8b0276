"""Methods on trial: a folder each, with an owner, its evidence, and a date by which it is promoted, renewed or deleted.

An entry may import from every room below; nothing in the stable core imports an entry. `burnish.experimental.profit` is imported when it is
used, and warns once that it may change.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import lazy_loader as lazy

HERE = Path(__file__).parent


class ExperimentalWarning(FutureWarning):
    """An entry of the experimental layer is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What users are told of an entry, from its STATUS.toml. `tools/status.py` checks the whole file."""

    paper: str
    owner: str
    expires: str
    """ISO date."""


def entries() -> tuple[str, ...]:
    """Names of the entries, in order."""
    return tuple(sorted(path.parent.name for path in HERE.glob("*/STATUS.toml")))


def status(entry: str) -> Status:
    import tomllib

    said = tomllib.loads((HERE / entry / "STATUS.toml").read_text(encoding="utf-8"))
    return Status(paper=said["paper"], owner=said["owner"], expires=str(said["expires"]))


def warn_of(package: str) -> None:
    """For the first line of an entry: Python imports it once in a process, so it warns once."""
    of = status(package.rpartition(".")[2])
    warnings.warn(
        f"{package} is experimental (owner: {of.owner}; expires on {of.expires}): it may change or go without notice.",
        ExperimentalWarning,
        stacklevel=3,
    )


__getattr__, __dir__, __all__ = lazy.attach(__name__, submodules=entries())
