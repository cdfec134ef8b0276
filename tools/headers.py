"""What a recipe says of itself: the comments that it opens with, and the table in docs/recipes.md.

    # What it trains, in a sentence.
    #
    # command:  burnish sft --config recipes/laptop/sft.yaml
    # hardware: two CPU cores, 5 GB of memory
    # time:     …
    # curve:    …
    # measured: docs/first-run.md        where the numbers of time and curve stand; or: not yet
    #
    # Why its options are what they are.

There may also be `before`, `then` and `or`, further commands, and `plan`, what was counted and the command that counts it. A note that goes
on in a further line is indented there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SIZES = ("laptop", "one_gpu", "one_node")
"""Folders, from small to large."""
NEEDED = ("command", "hardware", "time", "curve", "measured")
KNOWN = (*NEEDED, "before", "then", "or", "plan")
NOT_YET = "not yet"
NOT_MEASURED = "not measured yet"
NOTE = re.compile(r"^# (?P<name>[a-z]+): +(?P<text>.+)$")
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    path: Path
    title: str
    notes: dict[str, str]
    reasons: str

    @property
    def name(self) -> str:
        return f"recipes/{self.path.parent.name}/{self.path.name}"

    @property
    def method(self) -> str:
        """The `burnish` command that trains."""
        found = re.search(r"\bburnish (\w+)", self.notes["command"])
        return found[1] if found else ""


def read_recipe(path: Path) -> Recipe:
    """Raises ValueError, with file and line, for a header that is not as above."""
    lines = _header(path)
    title = lines[0].removeprefix("# ") if lines else ""
    notes: dict[str, str] = {}
    last, at = "", 2
    for at, line in enumerate(lines[2:], start=2):
        if line == "#":
            break
        if found := NOTE.match(line):
            last = found["name"]
            if last not in KNOWN or last in notes:
                raise ValueError(f"{path}, line {at + 1}: {last!r} is {'given twice' if last in notes else f'none of {KNOWN}'}.")
            notes[last] = found["text"]
        elif last and line.startswith("#   "):
            notes[last] += " " + line[1:].strip()
        else:
            raise ValueError(f"{path}, line {at + 1}: {line!r} is no note; write `# name: text`.")
    recipe = Recipe(path=path, title=title, notes=notes, reasons=" ".join(line[2:] for line in lines[at + 1 :]))
    for fault in faults(recipe, lines):
        raise ValueError(f"{path}: {fault}")
    return recipe


def _header(path: Path) -> list[str]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return lines
        lines.append(line.rstrip())
    return lines


def faults(recipe: Recipe, lines: list[str]) -> Iterator[str]:
    """What is missing, and what is claimed without a measurement."""
    if not recipe.title.endswith(".") or lines[1:2] != ["#"]:
        yield "it opens with one sentence about what it trains, and an empty comment."
    if missing := [name for name in NEEDED if name not in recipe.notes]:
        yield f"its header lacks {', '.join(missing)}."
        return
    if not recipe.reasons:
        yield "its header does not say why its options are what they are."
    if f"--config {recipe.name}" not in recipe.notes["command"]:
        yield f"its command names another file than --config {recipe.name}."
    claims = {name: recipe.notes[name] for name in ("time", "curve")}
    if recipe.notes["measured"] == NOT_YET:
        bold = [name for name, text in claims.items() if not text.startswith(NOT_MEASURED)]
        if bold:
            yield f"{bold[0]} claims what was not measured; begin it with `{NOT_MEASURED}`."
        return
    page = recipe.path.parents[2] / recipe.notes["measured"]
    if not page.is_file():
        yield f"measured names {recipe.notes['measured']}, which is not there."
        return
    known = set(NUMBER.findall(page.read_text(encoding="utf-8"))) | _small(recipe)
    for name, text in claims.items():
        if unknown := [number for number in NUMBER.findall(text) if number not in known]:
            yield f"{name} says {unknown[0]}, which {recipe.notes['measured']} does not."


def _small(recipe: Recipe) -> set[str]:
    """Numbers that are the recipe's own options."""
    return set(NUMBER.findall("".join(line for line in recipe.path.read_text(encoding="utf-8").splitlines(True) if line[0] != "#")))


def recipes(root: Path) -> list[Recipe]:
    """All of them, by size and name."""
    return [read_recipe(path) for size in SIZES for path in sorted((root / "recipes" / size).glob("*.yaml"))]


def recipe_rows(root: Path) -> list[tuple[str, ...]]:
    """Rows of the table in docs/recipes.md."""
    rows = []
    for one in recipes(root):
        said = one.notes
        page = said["measured"].removeprefix("docs/")
        hardware = said["hardware"] + (f"; planned: {said['plan'].partition(' (')[0]}" if "plan" in said else "")
        found = NOT_MEASURED if page == NOT_YET else f"{said['time']}; {said['curve']}: [{page}]({page})"
        rows.append((f"`{one.name}`", f"[`{one.method}`]({one.method}.md)", one.title.rstrip("."), hardware, found))
    return rows
