"""Deprecations that are due: an old name goes in the version that its line names.

    python tools/deprecations.py [--root FOLDER]

Prints what is wrong with the table in src/burnish/deprecated.py, and what to do, and exits with 1 if there is anything.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = Path("src/burnish/deprecated.py")
KINDS = "'SFTConfig.old_option', 'burnish.OldName' or 'burnish old-command'"


def load(root: Path) -> ModuleType:
    """The module that holds the table, by its path: nothing of the package is imported."""
    spec = importlib.util.spec_from_file_location("deprecated_names", root / TABLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def version_of(root: Path) -> str:
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def check(table: Iterable[Any], version: str, known: set[str] | None = None) -> list[str]:
    """Sentences about lines that are due, out of order, of no kind, or (where `known` names the stable surface) lead nowhere."""
    found = []
    for one in table:
        if _kind(one.old) is None or _kind(one.old) != _kind(one.new):
            found.append(f"{one.old} → {one.new} must be two names of one kind: {KINDS}.")
        elif number(one.removed_in) <= number(version):
            found.append(
                f"{one.old} was to go in {one.removed_in} and this is {version}: delete the line, and what keeps the name working."
            )
        elif number(one.since) >= number(one.removed_in):
            found.append(f"{one.old} would go in {one.removed_in}, before anybody was told in {one.since}; give a later version.")
        elif known is not None and one.new not in known:
            found.append(f"{one.old} leads to {one.new}, which is no stable name; name one of tests/api/stable.txt.")
        elif known is not None and one.old in known:
            found.append(f"{one.old} is deprecated and still there under its own name; delete that, the table keeps it working.")
    return found


def _kind(name: str) -> str | None:
    if name.startswith("burnish "):
        return "command"
    owner, dot, rest = name.partition(".")
    return owner if dot and rest.isidentifier() else None


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main(arguments: list[str]) -> int:
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--root", type=Path, default=ROOT)
    root = said.parse_args(arguments).root
    table, version = load(root).DEPRECATED, version_of(root)
    recorded = (root / "tests/api/stable.txt").read_text(encoding="utf-8").splitlines()
    known = {line.partition(" ")[2].partition(":")[0] for line in recorded}
    found = check(table, version, known)
    if f'__version__ = "{version}"' not in (root / "src/burnish/__init__.py").read_text(encoding="utf-8"):
        found.append(f"burnish.__version__ is not {version}, which pyproject.toml says; make them the same.")
    for sentence in found:
        print(f"{TABLE}: {sentence}")
    if not found:
        print(f"Deprecated names: {len(table)}, none of them due in {version}.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
