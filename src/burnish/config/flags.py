"""The command line's grammar: tyro splits it in options and words, and writes the help; what the words mean is `values.py`'s."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict, get_origin

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

    record: Any = TypedDict  # made here, so no type checker can follow
    boxes: dict[str, Any] = {"config": _flag("config", CONFIG_HELP, "FILE")}
    for owner in dict.fromkeys(base for cls in parts.values() for base in cls.__mro__):
        flags = {
            name: _flag(name, option.help, metavar(option.kind), _default(option))
            for name, option in known.items()
            if option.owner is owner
        }
        if flags:
            title = owner.__name__.removesuffix("Config").lower()  # tyro writes it over the box
            boxes[title] = Annotated[record(title, flags, total=False), tyro.conf.arg(help=(owner.__doc__ or "").partition("\n")[0])]
    old = {word[2:].partition("=")[0] for word in args if word.startswith("--")} - set(known) - {"config", "help"}
    boxes["old"] = record("old", {name: _flag(name) for name in old}, total=False)
    split = dict(tyro.cli(record("flags", boxes, total=False), args=args, prog=prog, description=description, use_underscores=True))
    files = {"config": split.pop("config")} if "config" in split else {}
    return files | {name: words for box in split.values() for name, words in box.items()}


def _flag(name: str, text: str = "", shown: str = "", default: str = "") -> Any:
    import tyro

    # a constructor of its own, where list[str] would do, spares tyro the import of a type checker: a third of the time of --help
    words = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*", metavar=shown, instance_from_str=list, is_instance=lambda value: isinstance(value, list), str_from_instance=list
    )
    return Annotated[list, words, tyro.conf.arg(name=name, prefix_name=False, help=text, help_behavior_hint=default)]


def _default(option: Option) -> str:
    if option.required:
        return "(required)"
    shown = str(option.default).lower() if isinstance(option.default, bool) else option.default
    return f"(default: {'none' if shown == [] else shown})"


def _value(name: str, words: list[str], option: Option | None, old: bool) -> Any:
    kind = Any if option is None else option.kind
    if not words and get_origin(kind) is not list:
        if option is not None and bool not in members(kind):
            raise ConfigError(f"--{name} needs a value: {describe(kind, option.accepted)}.")
        return True
    # an old spelling's values may be wider than the option's own: None where nothing is asked for, True for "auto"
    values = [from_json(word) if option is None else from_text(word, kind | bool | None if old else kind) for word in words]
    return values[0] if len(values) == 1 else values
