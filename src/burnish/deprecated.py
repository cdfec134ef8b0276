"""Names that Burnish is leaving behind. `DEPRECATED` is the one place where that is said.

A line of it makes the old name work, with a warning, until the version that removes it; it is what `docs/deprecated.md` lists, and
`tools/deprecations.py` fails when that version is there and the line still is. Three kinds of names have lines:

    Deprecated(old="SFTConfig.max_len", new="SFTConfig.max_length", since="0.2.0", removed_in="0.4.0")    an option, of one class
    Deprecated(old="burnish.SFT", new="burnish.SFTTrainer", since="0.2.0", removed_in="0.4.0")            a name of the public door
    Deprecated(old="burnish tune", new="burnish sft", since="0.2.0", removed_in="0.4.0")                  a command

Spellings of other libraries are no deprecations: `config/renamed.py` has them, for good.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecated:
    old: str
    new: str
    since: str
    """Version that brought the new name."""
    removed_in: str

    def __str__(self) -> str:
        return f"{self.old} is deprecated since Burnish {self.since} and goes in {self.removed_in}; use {self.new}."

    @property
    def new_name(self) -> str:
        """Without what stands before the dot."""
        return self.new.rpartition(".")[2]


DEPRECATED: tuple[Deprecated, ...] = ()


def deprecated_options(owner: str) -> dict[str, Deprecated]:
    """Old names of the options that the configuration class `owner` itself has."""
    return {one.old.rpartition(".")[2]: one for one in DEPRECATED if one.old.partition(".")[0] == owner}


def with_old_names(get: Callable[[str], Any]) -> Callable[[str], Any]:
    """A module's `__getattr__` that also knows the old names, and warns where one is used."""
    old_names = deprecated_options("burnish")

    def get_either(name: str) -> Any:
        if name not in old_names:
            return get(name)
        warnings.warn(str(old_names[name]), DeprecationWarning, stacklevel=2)
        return get(old_names[name].new_name)

    return get_either


def with_new_command(args: list[str]) -> tuple[list[str], Deprecated | None]:
    """The words after `burnish` with the command's new name; and what is to be said of the old one, where they had it."""
    for one in DEPRECATED:
        program, *old = one.old.split()
        if old and program == "burnish" and args[: len(old)] == old:
            return [*one.new.split()[1:], *args[len(old) :]], one
    return args, None
