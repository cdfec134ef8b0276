"""From a command line, and a YAML file that it may name, to configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from burnish.config.base import Config, options, rules, settle, unknown
from burnish.config.flags import read_flags
from burnish.config.model import MOVED, LoadConfig, ModelConfig
from burnish.config.values import ConfigError

T = TypeVar("T")
L = TypeVar("L", bound=LoadConfig)


def parse(args: Sequence[str], command: type[T], *, prog: str = "burnish", description: str = "") -> T:
    """`args` as a `command`: a configuration class, or a dataclass whose fields are configurations.

    Flags and YAML keys are the configurations' option names and old spellings, all flat; an option that several configurations share is
    given to each. Flags win over `--config FILE`, under whichever spelling.

    Raises:
        ConfigError: as `translate` does; the sentence begins with file and line where a YAML file is at fault.
        SystemExit: after `--help`.
    """
    parts: dict[str, type] = {"": command} if issubclass(command, Config) else get_type_hints(command)
    flags = read_flags(args, parts, prog, description)
    path = flags.pop("config", None)
    written = {} if path is None else _read(Path(path), parts, prog)
    said = {name: value for name, value in written.items() if not _overruled(name, flags, parts)} | flags
    missing = [f"--{name}" for cls in parts.values() for name, one in options(cls).items() if one.required and name not in said]
    if missing:
        raise ConfigError(f"{prog} needs {' and '.join(missing)}.")
    made = {field: cls(**{name: value for name, value in said.items() if _takes(cls, name)}) for field, cls in parts.items()}
    return made[""] if "" in made else command(**made)


def to_dict(*configs: Config) -> dict[str, Any]:
    """All options of `configs` as plain data, flat.

    Raises:
        ConfigError: two configurations share an option and say different things of it.
    """
    said: dict[str, Any] = {}
    for one in configs:
        cls: type = type(one)
        for name in options(cls):
            value = _plain(vars(one)[name])
            if said.setdefault(name, value) != value:
                raise ConfigError(f"{name} is {said[name]!r} in one configuration and {value!r} in another; they must be the same.")
    return said


def agree(model: ModelConfig, args: L) -> tuple[ModelConfig, L]:
    """Both, with every option of `LoadConfig` as either of them says it. Raises ConfigError where they say different things."""
    model, args = _moved(model, args)
    said: dict[str, Any] = {}
    for name, one in options(LoadConfig).items():
        here, there = vars(model)[name], vars(args)[name]
        if one.default not in (here, there) and here != there:
            raise ConfigError(f"{name} is {here!r} in model_config and {there!r} in args; say it in one of them.")
        said[name] = there if here == one.default else here
    changed = {name: value for name, value in said.items() if value != vars(args)[name]}
    return replace(model, **said), replace(args, **changed) if changed else args


def _moved(model: ModelConfig, args: L) -> tuple[ModelConfig, L]:
    """Both, with what `args.model_init_kwargs` says of the model as its own options: a TRL script has no other place to say it."""
    given = args.model_init_kwargs or {}
    moved = {option: given[name] for name, option in MOVED.items() if given.get(name) is not None}
    if not set(given) & set(MOVED):
        return model, args
    if "dtype" in moved:
        moved["dtype"] = str(moved["dtype"]).removeprefix("torch.")
    for option, value in moved.items():
        if model.changed(option) and vars(model)[option] != value:
            raise ConfigError(
                f"{option} is {vars(model)[option]!r} in model_config and {value!r} in model_init_kwargs; say it in one of them."
            )
    rest = {name: value for name, value in given.items() if name not in MOVED}
    return replace(model, **moved), replace(args, model_init_kwargs=rest or None)


def dump_yaml(*configs: Config) -> str:
    """The YAML text of `to_dict(*configs)`. Read back through `--config` it gives equal configurations."""
    from burnish.config.yaml_file import dump

    return dump(to_dict(*configs))


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _takes(cls: type, name: str) -> bool:
    return name in options(cls) or name in rules(cls)


def _read(path: Path, parts: Mapping[str, type], prog: str) -> dict[str, Any]:
    from burnish.config.yaml_file import load

    values, lines = load(path)
    known = [name for cls in parts.values() for name in (*options(cls), *rules(cls))]
    for name in values:
        try:
            if name not in known:
                raise ConfigError(unknown(prog, name, known))
            for cls in parts.values():
                if _takes(cls, name):
                    settle(cls, name, values)
        except ConfigError as error:
            raise ConfigError(f"{path}, line {lines[name]}: {error}") from None
    return values


def _overruled(name: str, flags: Mapping[str, Any], parts: Mapping[str, type]) -> bool:
    """Whether a flag says what the YAML key `name` says. Two old spellings that together make one option do not overrule each other."""

    def become(name: str) -> str:
        return next((rule.new or name for cls in parts.values() if (rule := rules(cls).get(name))), name)

    return any(flag == name or (become(flag) == become(name) and become(name) in (flag, name)) for flag in flags)
