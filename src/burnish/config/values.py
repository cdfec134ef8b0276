"""The values of options: which are accepted, in one set of rules for Python, YAML and flags, and how to say so in a sentence."""

import dataclasses
import json
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


class ConfigError(ValueError):
    """An option, its value or a combination of options that cannot be run. One sentence."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The values that an option's type allows and that are accepted nevertheless."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    where: Callable[[Any], bool] | None = None
    said: str | None = None
    """What is accepted, in words; made from the type and the bounds where not given."""

    def __contains__(self, value: object) -> bool:
        if isinstance(value, int | float):
            inside = self.at_least <= value <= self.at_most and self.above < value < self.below
            return inside and (self.where is None or self.where(value))
        return True

    def __str__(self) -> str:
        bounds = {
            f"of at least {self.at_least:g}": self.at_least,
            f"above {self.above:g}": self.above,
            f"of at most {self.at_most:g}": self.at_most,
            f"below {self.below:g}": self.below,
        }
        return " and ".join(words for words, bound in bounds.items() if math.isfinite(bound))


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union; of any other type, that type alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def conform(value: Any, kind: Any) -> Any:
    """`value` as the type `kind`: an integral float as int, an enum member as its value, a lone item as a list.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    for one in members(kind):
        try:
            return _conform_one(value, one)
        except TypeError:
            continue
    raise TypeError(value)


def _conform_one(value: Any, kind: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if isinstance(value, str) and _structured(kind):
        value = _json(value)
    if kind is float or kind is int:
        return _number(value, kind)
    if origin is Literal and isinstance(value, str) and value in inner:
        return value
    if origin is list:
        return [conform(item, inner[0]) for item in (value if isinstance(value, list | tuple) else [value])]
    if origin is dict and isinstance(value, Mapping):
        return {conform(key, inner[0]): conform(item, inner[1]) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        return kind(**value)
    if origin is None and isinstance(value, kind):
        return value
    raise TypeError(value)


def _structured(kind: Any) -> bool:
    return get_origin(kind) is dict or any(map(dataclasses.is_dataclass, get_args(kind)))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise TypeError(text) from None


def _number(value: Any, kind: type[int] | type[float]) -> int | float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(value)
    number: Any = value
    if kind is int and number != int(number):
        raise TypeError(value)
    return kind(number)


def from_text(text: str, kind: Any) -> Any:
    """A word of the command line as a value of `kind`; the word itself where it is none, for `conform` to refuse."""
    kinds = [inner for one in members(kind) for inner in (get_args(one) if get_origin(one) is list else (one,))]
    if NoneType in kinds and text in ("None", "none", "null"):
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                continue
    return text


def from_json(text: str) -> Any:
    """A word whose option has no type of its own, as JSON has it, or True, False, None; else the word itself."""
    try:
        return json.loads(text)
    except ValueError:
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def describe(kind: Any, accepted: Accepted) -> str:
    """What an option accepts, in words: "a number above 0", "one of 'nll' or 'dft'", "an integer of at least 1 or None"."""
    if accepted.said:
        return accepted.said
    kinds = members(kind)
    said = [_describe_one(one) for one in kinds if one not in (int, float, NoneType)]
    if int in kinds or float in kinds:
        said.insert(0, f"{'a number' if float in kinds else 'an integer'} {accepted}".strip())
    return " or ".join([*said, "None"] if NoneType in kinds else said)


ITEMS = {str: "strings", float: "numbers"}
"""What a list may be of, beside choices and mappings."""


def _describe_one(kind: Any) -> str:
    if get_origin(kind) is Literal:
        *most, last = map(repr, get_args(kind))
        return f"{', '.join(most)} or {last}"
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if dataclasses.is_dataclass(item):
            return f"a list of mappings with {', '.join(f.name for f in dataclasses.fields(item) if f.name != 'notes')}"
        return f"a list of {_describe_one(item) if get_origin(item) is Literal else ITEMS[item]}"
    return {bool: "True or False", str: "a string", dict: "a mapping"}[get_origin(kind) or kind]


def metavar(kind: Any) -> str:
    """What an option accepts, as the help shows it: INT, {nll,dft}, STR [STR ...], None|FLOAT."""
    return "|".join("None" if one is NoneType else _metavar_one(one) for one in sorted(members(kind), key=lambda one: one is NoneType))


def _metavar_one(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if get_origin(kind) is list and not dataclasses.is_dataclass(get_args(kind)[0]):
        word = _metavar_one(get_args(kind)[0])
        return f"{word} [{word} ...]" if len(word) < 40 else f"{word} ..."
    return {bool: "{true,false}", int: "INT", float: "FLOAT", str: "STR"}.get(kind, "JSON")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one most resembles; None where none does."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)
