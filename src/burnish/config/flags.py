"""The command line's grammar: tyro splits it in options and words, and writes the help; what the words mean is `values.py`'s."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_origin

from burnish.config.base import Option, options, rules, unknown
from burnish.config.values import ConfigError, describe, from_json, from_text, members, metavar

CONFIG_HELP = "YAML file of options, spelled as here; flags win over it."


def read_flags(args: Sequence[str], parts: Mapping[str, type], prog: str, description: str) -> dict[str, Any]:
    """Options that the flags say, under the names they were given; `config` is the YAML file.

    `--learning-rate` is `--learning_rate`; a switch may stand alone or have a value; `--no_x` is `--x false`.

    Raises:
        ConfigError: an unknown flag, with the nearest known one; a word that belongs to no flag; a flag without its value.
        SystemExit: after `--help`.
    """
    known = {name: option for cls in parts.values() for name, option in options(cls).items()}
    old = {name for cls in parts.values() for name in rules(cls)}
    args = [_spelled(word, known, old, prog) for word in args]
    if args and not args[0].startswith("-"):
        raise ConfigError(f"{prog} was given {args[0]!r} without a flag; a file of options is given as --config {args[0]}.")
    said = _split(args, parts, known, prog, description)
    files = said.pop("config", None)
    if files is not None and len(files) != 1:
        raise ConfigError(f"--config needs one YAML file, not {len(files)}.")
    flags = {name: _value(name, words, known.get(name), name in old) for name, words in said.items()}
    return flags | ({} if files is None else {"config": files[0]})


def with_words(args: Sequence[str], cls: type, option: str) -> list[str]:
    """`args` with the words before the first flag, and those after a switch, as the values of `option`: "a --json b --at 3"."""
    words, rest, taken = list[str](), list[str](), True
    for word in args:
        if word.startswith("-"):
            known = options(cls).get(word[2:].replace("-", "_"))
            taken = known is not None and bool in members(known.kind)
        (words if taken and not word.startswith("-") and word not in ("true", "false") else rest).append(word)
    return [*([f"--{option}", *words] if words else []), *rest]


def _spelled(word: str, known: Mapping[str, Option], old: set[str], prog: str) -> str:
    if re.match(r"-[a-zA-Z]", word) and word != "-h":
        raise ConfigError(f"{prog} has no option {word}; options start with two dashes.")
    if not word.startswith("--") or word == "--help":
        return word
    flag, equals, value = word.partition("=")
    name = flag[2:].replace("-", "_")
    if name in known or name in old or name == "config":
        return f"--{name}{equals}{value}"
    if name.startswith("no_") and not equals and (name[3:] in old or (name[3:] in known and bool in members(known[name[3:]].kind))):
        return f"--{name[3:]}=false"
    raise ConfigError(unknown(prog, name, [*known, *old, "config"], "--{}".format))


def _split(
    args: Sequence[str], parts: Mapping[str, type], known: Mapping[str, Option], prog: str, description: str
) -> dict[str, list[str]]:
    import tyro

    boxes = [_flag("config", CONFIG_HELP, "FILE")]
    for owner in dict.fromkeys(base for cls in parts.values() for base in cls.__mro__):
        own = {name: option for name, option in known.items() if option.owner is owner}
        if own:
            flags = [_flag(name, option.help, metavar(option.kind), _default(option)) for name, option in own.items()]
            title = owner.__name__.removesuffix("Config").lower()  # tyro writes it over the box
            about = tyro.conf.arg(help=(owner.__doc__ or "").partition("\n")[0])
            boxes.append((title, Annotated[dataclasses.make_dataclass(title, flags), about]))
    old = {word[2:].partition("=")[0] for word in args if word.startswith("--")} - set(known) - {"config", "help"}
    boxes.append(("old", dataclasses.make_dataclass("old", map(_flag, old))))
    line: Any = dataclasses.make_dataclass("line", boxes, kw_only=True)
    split = dict(vars(tyro.cli(line, args=args, prog=prog, description=description, use_underscores=True)))
    said = {"config": split.pop("config"), **{name: words for box in split.values() for name, words in vars(box).items()}}
    return {name: words for name, words in said.items() if words is not None}


def _flag(name: str, text: str = "", shown: str = "", default: str = "") -> tuple[Any, ...]:
    """A field for `make_dataclass`: the words after the flag, or None where the flag is not given."""
    import tyro

    # `object` with a constructor, where list[str] | None would do, spares tyro the import of a type checker: a quarter of --help's time
    words = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*", metavar=shown, instance_from_str=list, is_instance=lambda value: True, str_from_instance=lambda value: []
    )
    arg = tyro.conf.arg(name=name, prefix_name=False, help=text, help_behavior_hint=default)
    return name, Annotated[object, words, arg], None


def _default(option: Option) -> str:
    if option.required:
        return "(required)"
    default = option.default
    if isinstance(default, list):
        return f"(default: {' '.join(map(str, default)) or 'none'})"
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    return f"(default: {shown if shown.isprintable() else repr(shown)})"


def _value(name: str, words: list[str], option: Option | None, old: bool) -> Any:
    kind = Any if option is None else option.kind
    if not words and get_origin(kind) is not list:
        if option is not None and bool not in members(kind):
            raise ConfigError(f"--{name} needs a value: {describe(kind, option.accepted)}.")
        return True
    # an old spelling's values may be wider than the option's own: None where nothing is asked for, True for "auto"
    values = [from_json(word) if option is None else from_text(word, kind | bool | None if old else kind) for word in words]
    return values[0] if len(values) == 1 else values
