"""Budgets of a source tree, read from its syntax trees: what no linter counts.

    python tools/check_tree.py src

Prints ``file:line: what, limit`` for each thing over its budget and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "burnish"

FILE_LINES = 400
LOOP_LINES = 150
"""Of `loop.py`: one page, read from top to bottom."""
FUNCTION_LINES = 60
OPS_FUNCTION_LINES = 30
POSITIONAL = 8
FIELDS = 25

DATACLASS_DECORATORS = {"dataclass", "config"}
"""`config` is the project's own, in config/base.py."""
DYNAMIC = {"getattr", "hasattr", "setattr", "delattr", "vars", "exec", "eval", "globals", "locals", "attrgetter", "methodcaller"}
"""By these, a name is reached through a string: out of sight of a type checker and of a reader's search."""
DYNAMIC_ATTRIBUTES = {"__dict__", "__getattribute__", "__setattr__", "__delattr__", "attrgetter", "methodcaller"}
NO_SYNC = {"item"}
"""Methods that make the host wait for the device."""


@dataclass(frozen=True)
class Allowed:
    """An exception. One that nothing needs any more is itself reported."""

    path: str
    """Ends the file's path; with a slash at its end, a folder in it."""
    name: str
    reason: str


ALLOWED = (
    Allowed("checkpoint/state.py", "vars", "a callback is restored in place, since its user may hold on to it"),
    Allowed("checkpoint/trainer_state.py", "vars", "progress is the fields that PROGRESS names"),
    Allowed("config/", "vars", "options are the fields of a configuration, walked by name"),
    Allowed("config/base.py", "__setattr__", "a note is added to a frozen configuration while it settles"),
    Allowed("models/export.py", "__dict__", "a model that does not generate has no generation_config"),
    Allowed("models/head.py", "__dict__", "a transformers config has a field only where its architecture does"),
    Allowed("models/load.py", "__dict__", "attention modules keep their dropout under this name, or have none"),
    Allowed("models/lora.py", "__dict__", "transformers marks a quantized model so, and no other"),
    Allowed("models/policy.py", "__dict__", "a transformers config has a field only where its architecture does"),
    Allowed("run.py", "methodcaller", "a callback's method is named by its event, as in transformers"),
    Allowed("run.py", "vars", "a callback may answer with a control of transformers' own class"),
)


@dataclass(frozen=True, order=True)
class Finding:
    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def check(roots: list[Path], allowed: tuple[Allowed, ...] = ALLOWED) -> tuple[list[Finding], int]:
    """Everything over budget under `roots`, in order, and how many files were read."""
    files = sorted(path for root in roots for path in ([root] if root.is_file() else root.rglob("*.py")))
    findings: list[Finding] = []
    read: set[Allowed] = set()
    used: set[Allowed] = set()
    for path in files:
        exceptions = {a.name: a for a in allowed if _covers(a, path.as_posix())}
        read |= set(exceptions.values())
        for line, what, name in _check_file(path):
            if name in exceptions:
                used.add(exceptions[name])
            else:
                findings.append(Finding(path.as_posix(), line, what))
    unused = [a for a in allowed if a not in used and (a in read or not (PACKAGE / a.path).exists())]
    here = Path(__file__).as_posix()
    stale = [Finding(here, _line_of(a), f"the exception for {a.name} in {a.path} is not needed; remove it") for a in unused]
    return sorted(findings) + stale, len(files)


def _covers(one: Allowed, path: str) -> bool:
    return f"/{one.path}" in path if one.path.endswith("/") else path.endswith(f"/{one.path}")


def _line_of(one: Allowed) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next((i for i, line in enumerate(lines, 1) if f'Allowed("{one.path}", "{one.name}"' in line), 1)


def _check_file(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, what is over which limit, the name that an exception would allow)."""
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield error.lineno or 1, f"does not parse ({error.msg})", ""
        return
    limit = LOOP_LINES if path.name == "loop.py" else FILE_LINES
    if (lines := len(text.splitlines())) > limit:
        yield limit + 1, f"file of {lines} lines, at most {limit}; divide it by what it does", ""
    in_ops = "ops" in path.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _check_function(node, OPS_FUNCTION_LINES if in_ops else FUNCTION_LINES)
        elif isinstance(node, ast.ClassDef):
            yield from _check_class(node)
    yield from _check_names(tree, in_ops=in_ops)


def _check_function(function: ast.FunctionDef | ast.AsyncFunctionDef, limit: int) -> Iterator[tuple[int, str, str]]:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
    if lines > limit:
        yield function.lineno, f"body of {function.name} has {lines} lines, at most {limit}", ""
    arguments = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    positional = len(arguments) - (arguments[:1] in (["self"], ["cls"]))
    if positional > POSITIONAL:
        yield function.lineno, f"{function.name} takes {positional} positional parameters, at most {POSITIONAL}", ""


def _check_class(one: ast.ClassDef) -> Iterator[tuple[int, str, str]]:
    names = {_last_name(d.func if isinstance(d, ast.Call) else d) for d in one.decorator_list}
    fields = [f for f in one.body if isinstance(f, ast.AnnAssign) and "ClassVar" not in ast.unparse(f.annotation)]
    if names & DATACLASS_DECORATORS and len(fields) > FIELDS:
        yield one.lineno, f"{one.name} has {len(fields)} fields of its own, at most {FIELDS}", ""


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _check_names(tree: ast.Module, *, in_ops: bool) -> Iterator[tuple[int, str, str]]:
    inside_post_init = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "__post_init__" for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"global {', '.join(node.names)}; pass it, or keep it in an object", "global"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in DYNAMIC:
                yield node.lineno, f"{node.id} reaches a name through a string; spell it, or add an exception with its reason", node.id
            elif in_ops and node.id == "print":
                yield node.lineno, "print in ops, which compute and say nothing", "print"
        elif isinstance(node, ast.Attribute):
            # a frozen dataclass has no other way to settle its own fields
            settles = node.attr == "__setattr__" and id(node) in inside_post_init
            if node.attr in DYNAMIC_ATTRIBUTES and not settles:
                yield node.lineno, f"{node.attr} reaches a name through a string; spell it, or add an exception with its reason", node.attr
            elif in_ops and node.attr in NO_SYNC:
                yield node.lineno, f".{node.attr}() in ops makes the host wait for the device; keep the tensor", node.attr


def main(arguments: list[str]) -> int:
    roots = [Path(a) for a in arguments]
    if missing := [str(r) for r in roots if not r.exists()] or ([] if roots else ["(no folder given)"]):
        print(f"Nothing to check in {', '.join(missing)}; give folders or files, such as src.")
        return 2
    findings, files = check(roots)
    for finding in findings:
        print(finding)
    print(f"{len(findings)} over budget in {files} files." if findings else f"{files} files within budget.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
