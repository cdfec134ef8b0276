"""YAML as people write it: YAML 1.2's scalars, so that `no` is a word and `1e-4` a number, and the line of every key."""

import re
from pathlib import Path
from typing import Any

import yaml

from burnish.config.values import ConfigError


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as a string."""


NULL, BOOL, INT, FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
FLOATS = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
SCALARS = (
    (NULL, re.compile(r"^(~|null|Null|NULL|None|)$"), ["~", "n", "N", ""]),
    (BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    (INT, re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (FLOAT, FLOATS, list("-+.0123456789")),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"]),
)
for _tag, _pattern, _first in SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def load(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """(options by name, their lines by name).

    Raises:
        ConfigError: no such file, not YAML (with the line), not a mapping of names, or a name that is given twice.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
    except OSError as error:
        raise ConfigError(f"The file of --config could not be read: {path} ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{path}, line {mark.line + 1 if mark else 1}: not YAML ({error.problem or error.context}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML ({' '.join(str(error).split())}).") from None
    if root is None:
        return {}, {}
    if not isinstance(root, yaml.MappingNode):
        kind = "list" if isinstance(root, yaml.SequenceNode) else "scalar"
        raise ConfigError(f"{path} must hold options, one `name: value` on each line, not a {kind}.")
    loader.flatten_mapping(root)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{path}, line {line}: the name of an option must be a word, not a {key.id}.")
        name = key.value.replace("-", "_")
        if name in values:
            raise ConfigError(f"{path}, line {line}: {name} was given on line {lines[name]} already; keep one of them.")
        values[name], lines[name] = loader.construct_object(value, deep=True), line
    return values, lines


def dump(options: dict[str, Any]) -> str:
    """`options` as YAML text that `load` reads back to equal values, in the same order."""
    return yaml.dump(options, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
