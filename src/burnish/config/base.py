"""What every configuration class is made of: options said by name, in the new spelling or an old one, each checked.

    @config
    class SFTConfig(TrainConfig):
        max_length: int | None = option(1024, "Longest row, in tokens.", at_least=1)

A class made by `config` is a frozen, keyword-only dataclass. `SFTConfig(max_seq_length=512, bf16=True)` is translated by the table
`SPELLINGS` before anything is stored; what was translated in a way the user should know of is kept in `notes`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, dataclass_transform, get_type_hints

from burnish.config.processes import processes
from burnish.config.renamed import Rule
from burnish.config.renamed_online import SPELLINGS
from burnish.config.values import Accepted, ConfigError, conform, describe, nearest
from burnish.deprecated import deprecated_options

C = TypeVar("C", bound="Config")


def option(default: Any = dataclasses.MISSING, help: str = "", **accepted: Any) -> Any:  # noqa: A002
    """A field with its help text. `accepted` narrows the type: at_least, above, at_most, below, where, said (see `Accepted`)."""
    metadata = {"help": help, "accepted": Accepted(**accepted)}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What is known of one option of a configuration class."""

    name: str
    kind: Any
    default: Any
    help: str
    accepted: Accepted
    owner: type
    """The class that introduced it; the help is grouped by these."""

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    def check(self, value: Any, said_as: str) -> Any:
        """The value as stored. Raises ConfigError, naming the option as the user spelled it, the value and what is accepted."""
        try:
            stored = conform(value, self.kind)
        except TypeError:
            pass
        else:
            if stored in self.accepted:
                return stored
        raise ConfigError(f"{said_as} must be {describe(self.kind, self.accepted)}, not {value!r}.")


@functools.cache
def options(cls: type) -> dict[str, Option]:
    """The options of a configuration class by name, those of its bases first."""
    kinds = get_type_hints(cls)
    return {
        field.name: Option(
            name=field.name,
            kind=kinds[field.name],
            default=field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
            help=field.metadata["help"],
            accepted=field.metadata["accepted"],
            owner=next(base for base in reversed(cls.__mro__) if field.name in vars(base).get("__annotations__", ())),
        )
        for field in dataclasses.fields(cls)
        if "help" in field.metadata
    }


@functools.cache
def rules(cls: type) -> dict[str, Rule]:
    """The old spellings that a configuration class takes: its part of `SPELLINGS` and of the deprecated names, and its bases'."""
    found: dict[str, Rule] = {}
    for base in reversed(cls.__mro__):
        found |= SPELLINGS.get(base.__name__, {})
        found |= {old: Rule(new=one.new_name, deprecated=str(one)) for old, one in deprecated_options(base.__name__).items()}
    return found


def settle(cls: type, name: str, said: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """One option among those that were said → new options, checked, and a note. Raises ConfigError, as `translate` does."""
    known, old = options(cls), rules(cls)
    if name not in known and name not in old:
        raise ConfigError(unknown(cls.__name__, name, [*known, *old]))
    became, note = old[name].apply(name, said, processes().world_size) if name in old else ({name: said[name]}, None)
    return {new: known[new].check(value, name) for new, value in became.items()}, note


def translate(cls: type, said: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options as they were said → options as `cls` has them, each checked, and notes for the user.

    Raises:
        ConfigError: an unknown name (with the nearest known one), a spelling that is refused (with what to use instead), a value that
            is not accepted, two names that say different things of one option, or a required option that is missing.
    """
    settled: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    notes: list[str] = []
    for name in said:
        became, note = settle(cls, name, said)
        notes += [note] if note else []
        for new, value in became.items():
            if settled.setdefault(new, value) != value:
                both = f"{said_by[new]}={said[said_by[new]]!r} and {name}={said[name]!r}"
                raise ConfigError(f"{both} say different things of {new}; give only {new}.")
            said_by.setdefault(new, name)
    missing = [name for name, one in options(cls).items() if one.required and name not in settled]
    if missing:
        raise ConfigError(f"{cls.__name__} needs {' and '.join(missing)}.")
    return settled, notes


def unknown(where: str, name: str, known: Iterable[str], spell: Callable[[str], str] = repr) -> str:
    """The sentence about an unknown name, with the nearest known one."""
    near = nearest(name, known)
    return f"{where} has no option {spell(name)}" + (f"; the nearest is {spell(near)}." if near else ".")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def config(cls: type[C]) -> type[C]:
    """Makes `cls` a frozen, keyword-only dataclass whose constructor takes old spellings and checks every value."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    plain = cls.__init__

    @functools.wraps(plain)
    def init(self: C, *unnamed: Any, **said: Any) -> None:
        if unnamed:
            raise ConfigError(f"{cls.__name__} takes options by name, and {unnamed[0]!r} has none; write option={unnamed[0]!r}.")
        notes = list(said.pop("notes", ()))
        settled, more = translate(cls, said)
        plain(self, **settled, notes=tuple(dict.fromkeys(notes + more)))

    def keep(self: C, name: str, value: Any) -> None:
        raise ConfigError(f"{cls.__name__} is checked as a whole and then stays as it is; say {name}={value!r} where it is made.")

    cls.__init__ = init  # type: ignore[method-assign, assignment]
    cls.__setattr__ = keep  # type: ignore[method-assign, assignment]
    return cls


@config
class Config:
    """The base of all configuration classes."""

    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)
    """Sentences about old spellings whose effect is not obvious, to be shown when the run starts."""

    def __post_init__(self) -> None:
        """Refuses combinations that contradict each other; each class checks its own options and calls the next."""

    def note(self, sentence: str) -> None:
        """Adds to `notes`."""
        object.__setattr__(self, "notes", tuple(dict.fromkeys((*self.notes, sentence))))

    def changed(self, *names: str) -> list[str]:
        """Those of the named options that are not at their default, as they would be written: "lora_r=8"."""
        cls: type = type(self)
        return [f"{name}={vars(self)[name]!r}" for name in names if vars(self)[name] != options(cls)[name].default]
