"""Tables made from the source: of methods, of recipes from their headers, and those of docs/migrate-from-trl.md.

python tools/tables.py            compares; exits with 1 where a page is not as the source has it
python tools/tables.py --record   writes it anew
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from pathlib import Path

import migration
from headers import recipe_rows
from status import entry_folders

ROOT = Path(__file__).parents[1]
METHODS = ("method", "status", "what it does", "page")
RECIPES = ("recipe", "command", "what it trains", "hardware", "time and curve")
PAGES = {"README.md": METHODS, "docs/methods.md": METHODS, "docs/recipes.md": RECIPES}
"""Page → the head of its table."""


def methods(root: Path, page: Path) -> list[tuple[str, ...]]:
    """Stable methods, then those on trial. Raises SystemExit for a stable method without its page."""
    rows = []
    for file in sorted((root / "src/burnish/methods").glob("[!_]*.py"), key=lambda file: (_place(root, file.stem), file.stem)):
        about = root / "docs" / f"{file.stem}.md"
        if not about.is_file():
            raise SystemExit(f"docs/{file.stem}.md: is missing; write the page of the method {file.stem}, as docs/sft.md has it.")
        losses = ", ".join(f"`{loss}`" for loss in _losses(root / "src/burnish/config" / file.name))
        rows.append((f"`burnish {file.stem}`", "stable", _summary(file) + (f" ({losses})" if losses else ""), _link(about, page)))
    for entry in entry_folders(root):
        said = tomllib.loads((entry / "STATUS.toml").read_text(encoding="utf-8"))
        # a page of the site cannot link to what is not in it
        about = entry / "README.md" if page.parent == root else root / "docs" / "experimental.md"
        rows.append(
            (f"`burnish experimental {entry.name}`", f"on trial until {said['expires']}", _summary(entry / "method.py"), _link(about, page))
        )
    return rows


def _summary(file: Path) -> str:
    """The first sentence of a module's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0].rstrip(".")


def _place(root: Path, method: str) -> int:
    """Where the command line lists it."""
    source = ast.parse((root / "src/burnish/cli/main.py").read_text(encoding="utf-8"))
    (table,) = (node.value for node in source.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHODS")
    assert isinstance(table, ast.Dict)
    names = [ast.literal_eval(key) for key in table.keys if key is not None]
    return names.index(method) if method in names else len(names)


def _losses(config: Path) -> list[str]:
    """What `loss_type` of the method's configuration may be, other libraries' variants aside."""
    if not config.is_file():
        return []
    source = ast.parse(config.read_text(encoding="utf-8"))
    named = {ast.unparse(node.targets[0]): node.value for node in source.body if isinstance(node, ast.Assign)}
    for node in ast.walk(source):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "loss_type":
            parts = [named.get(ast.unparse(part), part) for part in ast.walk(node.annotation) if isinstance(part, ast.expr)]
            choices = next(part for part in parts if ast.unparse(part).startswith("Literal["))
            found = [one.value for one in ast.walk(choices) if isinstance(one, ast.Constant)]
            return [str(loss) for loss in found if not str(loss).endswith("_trl")]
    return []


def _link(about: Path, page: Path) -> str:
    there = about.relative_to(page.parent)
    return f"[{about.name}]({there})"


def with_table(root: Path, name: str, text: str, head: tuple[str, ...]) -> str:
    """The page with its table as it should be. Raises SystemExit where it has none, or a recipe's header is wrong."""
    first = f"| {' | '.join(head)} |\n"
    found = re.search(rf"^{re.escape(first)}(?:\|.*\n)+", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{name}: has no such table any more; put back its head, {first.strip()}, and a row.")
    try:
        rows = methods(root, root / name) if head is METHODS else recipe_rows(root)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    made = first + "".join(f"| {' | '.join(row)} |\n" for row in (("---",) * len(head), *rows))
    return f"{text[: found.start()]}{made}{text[found.end() :]}"


def main(arguments: list[str]) -> int:
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--record", action="store_true")
    said.add_argument("--root", type=Path, default=ROOT)
    given = said.parse_args(arguments)
    stale = 0
    for name, head in {**PAGES, migration.PAGE: None}.items():
        page = given.root / name
        text = page.read_text(encoding="utf-8")
        wanted = migration.made(text) if head is None else with_table(given.root, name, text, head)
        if given.record:
            page.write_text(wanted, encoding="utf-8")
        elif text != wanted:
            print(f"{name}: its table is not what the source says; run `make api` and commit the page.")
            stale += 1
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
