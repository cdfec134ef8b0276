"""The stable surface, one line for each name, parameter, option and default, read from the source without importing it.

    python tools/api.py            compares with tests/api/stable.txt; prints a diff and exits with 1 where they differ
    python tools/api.py --record   writes it anew

Stable is what `burnish` itself exports, with public methods and their parameters; every option of every configuration; the commands;
and the functions of `ops`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
RECORD = Path("tests/api/stable.txt")
HEAD = "# The stable surface. Made by `make api`; a change here is a change for users.\n"
INSTEAD = (
    "The stable surface is not the one recorded in tests/api/stable.txt. If users are meant to see this change, run `make api` and commit "
    "the file with it; a name that goes away or is renamed also gets its line in src/burnish/deprecated.py."
)
BOUNDS = ("at_least", "above", "at_most", "below")


def surface(root: Path) -> list[str]:
    """Every line, in the order of the source."""
    package = griffe.load("burnish", search_paths=[root / "src"], allow_inspection=False)
    assert isinstance(package, griffe.Module)
    lines = [line for path in exported(root) for line in _exported(_defined(package[path]))]
    for room in ("config", "cli"):
        lines += [line for module in _modules(package[room]) for one in _classes(module) if _is_config(one) for line in _options(one)]
    lines += [line for module in _modules(package) if "config" in module.path or module.name == "types" for line in _choices(module)]
    lines += _commands(package["cli.main"])
    lines += [line for module in _modules(package["ops"]) for line in _algebra(module)]
    return lines


def _modules(package: griffe.Object) -> Iterator[griffe.Module]:
    """All under `package`, by name: the order of a folder's files is the machine's."""
    for name in sorted(package.members):
        member = package.members[name]
        if isinstance(member, griffe.Module):
            yield member
            yield from _modules(member)


def exported(root: Path) -> list[str]:
    """Dotted paths of the names in `submod_attrs` of burnish/__init__.py, such as "config.sft.SFTConfig"."""
    tree = ast.parse((root / "src/burnish/__init__.py").read_text(encoding="utf-8"))
    (named,) = (k.value for node in ast.walk(tree) if isinstance(node, ast.Call) for k in node.keywords if k.arg == "submod_attrs")
    return [f"{module}.{name}" for module, names in ast.literal_eval(named).items() for name in names]


def _defined(one: griffe.Object | griffe.Alias) -> griffe.Object:
    """Itself, where a room has it from one of its modules."""
    target = one.final_target if isinstance(one, griffe.Alias) else one
    assert isinstance(target, griffe.Object)
    return target


def _exported(one: griffe.Object) -> Iterator[str]:
    if isinstance(one, griffe.Class):
        bases = ", ".join(str(base) for base in one.bases)
        yield f"name burnish.{one.name}: class{f' ({bases})' if bases else ''}"
        if not _is_config(one):
            yield from _members(one, one.name)
    else:
        yield f"name burnish.{one.name}: {one.kind.value}"


def _members(one: griffe.Class, name: str) -> Iterator[str]:
    """Fields, properties and methods. What a class inherits stands under the class that has it."""
    fields = "dataclass" in one.labels or any(str(base) == "NamedTuple" for base in one.bases)
    for member in one.members.values():
        if member.is_alias or (member.name.startswith("_") and (fields or member.name != "__init__")):
            continue
        if isinstance(member, griffe.Function):
            yield from _function(member, f"{name}.{member.name}", "method")
        elif isinstance(member, griffe.Attribute) and "property" in member.labels:
            yield f"property {name}.{member.name}: {member.annotation}"
        elif isinstance(member, griffe.Attribute) and fields:
            yield f"field {name}.{member.name}: {_typed(member.annotation, member.value)}"


def _function(one: griffe.Function, name: str, kind: str) -> Iterator[str]:
    yield f"{kind} {name}: -> {one.returns}"
    for parameter in one.parameters:
        if parameter.name in ("self", "cls"):
            continue
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(parameter.kind, "")
        how = " (by name)" if parameter.kind is griffe.ParameterKind.keyword_only else ""
        default = None if stars else parameter.default
        yield f"parameter {name}.{stars}{parameter.name}: {_typed(parameter.annotation, default)}{how}"


def _typed(annotation: object, default: object) -> str:
    return f"{annotation}" + ("" if default is None else f" = {default}")


def _classes(module: griffe.Module) -> list[griffe.Class]:
    return [member for member in module.members.values() if isinstance(member, griffe.Class)]


def _is_config(one: griffe.Class) -> bool:
    return any(str(decorator.value) == "config" for decorator in one.decorators)


def _options(one: griffe.Class) -> Iterator[str]:
    for member in one.members.values():
        made = ast.parse(str(member.value), mode="eval").body if isinstance(member, griffe.Attribute) and member.value else None
        if not isinstance(made, ast.Call) or ast.unparse(made.func) != "option":
            continue
        named = {keyword.arg: ast.unparse(keyword.value) for keyword in made.keywords}
        default = ast.unparse(made.args[0]) if made.args else named.get("default", "(required)")
        bounds = ", ".join(f"{bound}={named[bound]}" for bound in BOUNDS if bound in named)
        yield f"option {one.name}.{member.name}: {member.annotation} = {default}{f' ({bounds})' if bounds else ''}"


def _choices(module: griffe.Module) -> Iterator[str]:
    """Named sets of values, which options and fields are typed with."""
    for member in module.members.values():
        if isinstance(member, griffe.Attribute) and str(member.value).startswith("Literal["):
            yield f"values {member.name}: {member.value}"


def _commands(module: griffe.Module) -> Iterator[str]:
    """All commands, then the configurations that each parses: for a method's commands those of `_command`, with its own from METHODS."""
    assert isinstance(module.filepath, Path)
    source = ast.parse(module.filepath.read_text(encoding="utf-8")).body
    functions = {node.name: node for node in source if isinstance(node, ast.FunctionDef)}
    tables = {ast.unparse(node.targets[0]): _entries(node.value) for node in source if isinstance(node, ast.Assign)}
    own = {method: ast.literal_eval(names.args[0]) for method, names in tables["METHODS"].items()}
    yield from (f"command burnish {name}:" for name in tables["COMMANDS"])
    for name, made in tables["COMMANDS"].items():
        if parts := _parsed(made.args[-1], functions, own):
            yield f"options burnish {name}: {', '.join(parts)}"


def _entries(table: ast.expr) -> dict[str, ast.Call]:
    """Of a dict from names to calls."""
    entries = zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ()
    return {ast.literal_eval(key): value for key, value in entries if key is not None and isinstance(value, ast.Call)}


def _parsed(runs: ast.expr, functions: dict[str, ast.FunctionDef], own: dict[str, str]) -> list[str]:
    """Names of the classes that a command parses: `runs` is a function, or a `partial` of one and a method."""
    method = ast.literal_eval(runs.args[1]) if isinstance(runs, ast.Call) else ""
    function = functions[ast.unparse(runs.args[0] if isinstance(runs, ast.Call) else runs)]
    for call in ast.walk(function):
        if not isinstance(call, ast.Call):
            continue
        if ast.unparse(call.func) == "_command":
            shared = [node.id for node in ast.walk(functions["_command"]) if isinstance(node, ast.Name) and node.id.endswith("Config")]
            about = call.args[0].value if isinstance(call.args[0], ast.Constant) else method
            return [*(ast.unparse(word.value) for word in call.keywords), *shared, own[str(about)]]
        if ast.unparse(call.func) == "parse" and ast.unparse(call.args[1]).endswith("Config"):
            return [ast.unparse(call.args[1])]
    return []


def _algebra(module: griffe.Module) -> Iterator[str]:
    for member in module.members.values():
        name = f"ops.{module.name}.{member.name}"
        if member.is_alias or member.name.startswith("_"):
            continue
        if isinstance(member, griffe.Function):
            yield from _function(member, name, "function")
        elif isinstance(member, griffe.Class):
            yield f"name {name}: class"
            yield from _members(member, name)


def compare(recorded: str, found: str) -> str:
    """What is different, as a diff without context; empty where nothing is."""
    diff = difflib.unified_diff(recorded.splitlines(), found.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in diff if not line.startswith(("---", "+++", "@@")))


def main(arguments: list[str]) -> int:
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--record", action="store_true")
    said.add_argument("--root", type=Path, default=ROOT)
    given = said.parse_args(arguments)
    lines = surface(given.root)
    found, file = HEAD + "".join(f"{line}\n" for line in lines), given.root / RECORD
    if given.record:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found, encoding="utf-8")
        print(f"{len(lines)} lines of stable surface recorded in {RECORD}.")
        return 0
    recorded = file.read_text(encoding="utf-8") if file.is_file() else ""
    if recorded == found:
        print(f"The stable surface is as recorded, {len(lines)} lines.")
        return 0
    print(f"{compare(recorded, found)}\n{INSTEAD}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
