"""What experimental entries owe: an owner, a date, evidence, tests that run; and all of them together, to stay smaller than the core.

    python tools/status.py [--root FOLDER] [--today 2027-01-31]

Prints ``path: what is wrong, what to do`` for each debt and exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIELDS: dict[str, type] = {
    "paper": str,
    "owner": str,
    "added": datetime.date,
    "expires": datetime.date,
    "evidence": str,
    "promotes_to": str,
    "missing": list,
}
KINDS = {str: "a string that says something", datetime.date: "a date such as 2027-01-31, without quotes", list: "a list of strings"}
PARTS = ("__init__.py", "config.py", "method.py", "README.md")
LEFT_OUT = {"skip", "skipif", "xfail", "importorskip"}
LONGEST = 366  # days that an entry may have before it

Debts = Iterator[tuple[Path, str]]


def entry_folders(root: Path) -> list[Path]:
    return sorted(path for path in (root / "src/burnish/experimental").glob("[!_.]*") if path.is_dir() and any(path.glob("*.*")))


def check(root: Path, today: datetime.date) -> list[tuple[Path, str]]:
    """(file, sentence) of everything that is owed, entry by entry."""
    return [debt for entry in entry_folders(root) for debt in _check_entry(entry, today)] + list(_check_weight(root))


def _check_entry(entry: Path, today: datetime.date) -> Debts:
    for part in PARTS:
        if not (entry / part).is_file():
            yield entry / part, "is missing; write it as src/burnish/experimental/profit has it."
    yield from _check_tests(entry)
    file = entry / "STATUS.toml"
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        yield file, f"is missing; write it, with {', '.join(FIELDS)}."
        return
    except tomllib.TOMLDecodeError as error:
        yield file, f"is not TOML ({error}); mend it."
        return
    yield from ((file, sentence) for sentence in _check_fields(said))
    expires = said.get("expires")
    if isinstance(expires, datetime.date):
        yield from ((file, sentence) for sentence in _check_date(entry.name, expires, today))


def _check_fields(said: dict[str, Any]) -> Iterator[str]:
    for name, kind in FIELDS.items():
        if name not in said:
            yield f"has no {name}; add it: {KINDS[kind]}."
        elif not _fits(said[name], kind):
            yield f"says {name} = {said[name]!r}; it must be {KINDS[kind]}."
    for name in said.keys() - FIELDS.keys():
        yield f"has a field {name!r} that nothing reads; remove it."
    place = said.get("promotes_to")
    if isinstance(place, str) and place.strip() and not (place.startswith("methods/") and place.endswith(".py")):
        yield f"says promotes_to = {place!r}; name a file of methods/, such as 'methods/sft.py'."


def _fits(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and bool(value.strip())
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return type(value) is kind


def _check_date(name: str, expires: datetime.date, today: datetime.date) -> Iterator[str]:
    if expires < today:
        yield (
            f"expired on {expires}: promote the entry (python tools/promote.py {name}), "
            "give it a new date with new evidence, or delete its folder."
        )
    elif (expires - today).days > LONGEST:
        yield f"expires only on {expires}; give a date within a year."


def _check_tests(entry: Path) -> Debts:
    files = sorted(entry.glob("tests/test_*.py"))
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    names = [node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    if not any(name.startswith("test_") for name in names):
        yield entry / "tests", "holds no test; write tests/test_*.py, with each equation worked by hand."
    for file, tree in trees.items():
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in LEFT_OUT:
                yield file, f"line {node.lineno}: {name} leaves a test out; mend the test, or delete what it tests."


def _check_weight(root: Path) -> Debts:
    package = root / "src/burnish"
    lines = {True: 0, False: 0}
    for file in package.rglob("*.py"):
        inside = file.relative_to(package).parts
        if not {"tests", "bench"} & set(inside):
            lines[inside[0] == "experimental"] += len(file.read_text(encoding="utf-8").splitlines())
    if lines[True] > lines[False]:
        yield package / "experimental", f"has {lines[True]:,} lines, the core {lines[False]:,}; promote or delete entries."


def main(arguments: list[str]) -> int:
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--root", type=Path, default=ROOT)
    said.add_argument("--today", type=datetime.date.fromisoformat, default=datetime.date.today())
    given = said.parse_args(arguments)
    debts = check(given.root, given.today)
    for path, sentence in debts:
        print(f"{path.relative_to(given.root)}: {sentence}")
    if not debts:
        print(f"Experimental entries in order: {', '.join(e.name for e in entry_folders(given.root)) or 'none'}.")
    return 1 if debts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
