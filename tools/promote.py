"""What stands between an experimental entry and the stable core, decided by machine where it can be.

    python tools/promote.py ENTRY             the whole list; the laws take some minutes
    python tools/promote.py ENTRY --no-laws   without running the laws
    python tools/promote.py --demote METHOD   the list backwards

Each line is "yes", "no" or "by hand" with the reason. Exits with 1 where one is "no".
"""

from __future__ import annotations

import argparse
import ast
import datetime
import io
import re
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import check_tree
import deprecations
import status

import api

ROOT = Path(__file__).parents[1]
SECTIONS = ("Equation", "Options", "Metrics", "Evidence", "Limits")
"""Headings of an entry's README, which becomes its docs page."""
SHARED = {"tree", "round trip", "fast = plain"}
"""Laws of the rooms that all methods share; no test of theirs takes a method."""


@dataclass(frozen=True)
class Line:
    verdict: Literal["yes", "no", "by hand"]
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.verdict:8}{self.what}: {self.reason}"


def decide(what: str, faults: Iterable[str], else_: str) -> Line:
    """A "no" with everything that speaks against it, or a "yes"."""
    faults = list(faults)
    return Line("no", what, "; ".join(faults)) if faults else Line("yes", what, else_)


# The list of an entry


def promotion(entry: str, *, laws: bool) -> Iterator[Line]:
    folder = ROOT / "src/burnish/experimental" / entry
    said = tomllib.loads((folder / "STATUS.toml").read_text(encoding="utf-8"))
    debts = [sentence for path, sentence in status.check(ROOT, datetime.date.today()) if folder in path.parents]
    yield decide("in order", debts, "tools/status.py has nothing to say")
    yield decide("nothing missing", said["missing"], "STATUS.toml names nothing")
    yield one_file(folder)
    yield fits(folder, said["promotes_to"])
    yield equations(folder)
    yield tests_pass(folder)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    yield decide("docs page", (f"README.md has no section {s}" for s in SECTIONS if f"# {s}" not in readme), "README.md has all sections")
    yield from options_used(entry)
    yield from all_laws(entry) if laws else [Line("by hand", "laws", "not run; leave --no-laws out")]
    yield Line("by hand", "evidence", f"somebody other than {said['owner']} repeats it ({said['evidence']})")
    yield Line("by hand", "names", "options are called as in transformers and TRL where the meaning is the same")
    yield from moves(entry, said["promotes_to"])


def one_file(folder: Path) -> Line:
    findings, _ = check_tree.check([folder / "method.py", folder / "config.py"], ())
    lines = len((folder / "method.py").read_text(encoding="utf-8").splitlines())
    return decide("one file within budget", map(str, findings), f"method.py has {lines} lines")


def fits(folder: Path, place: str) -> Line:
    """Methods do not know each other: a file of its own must not import another, a part of an existing one may import that."""
    tree = ast.parse((folder / "method.py").read_text(encoding="utf-8"))
    others = {name for name in imported(tree) if name.startswith("burnish.methods.")} - {f"burnish.{place[:-3].replace('/', '.')}"}
    return decide(
        "fits its place", (f"imports {name}, which {place} may not" for name in sorted(others)), f"{place} may import all it does"
    )


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def equations(folder: Path) -> Line:
    """Every equation that the method's docstring numbers is worked by hand in the docstring of a test."""
    number = re.compile(r"\beq\. (\d+)", re.IGNORECASE)
    claimed = set(number.findall(ast.get_docstring(ast.parse((folder / "method.py").read_text(encoding="utf-8"))) or ""))
    worked = set()
    for file in folder.glob("tests/test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                worked |= set(number.findall(ast.get_docstring(node) or ""))
    faults = [f"no test's docstring works eq. {n} by hand" for n in sorted(claimed - worked)]
    faults += [] if claimed else ["method.py's docstring numbers no equation (eq. 1)"]
    return decide("equations", faults, f"eq. {', '.join(sorted(claimed))} in tests")


def tests_pass(folder: Path) -> Line:
    found = run_tests([str(folder / "tests")])
    faults = [f"{one.name} {one.outcome}" for one in found if one.outcome != "passed"] or ([] if found else ["there is none"])
    return decide("its own tests", faults, f"{len(found)} passed")


def moves(entry: str, place: str) -> Iterator[Line]:
    here, there = f"src/burnish/experimental/{entry}", f"src/burnish/{place}"
    how = "merge into" if (ROOT / there).exists() else "move to"
    yield Line("by hand", "move", f"{here}/method.py: its algebra to ops/, the rest {how} {there}; config.py likewise, under config/")
    yield Line("by hand", "move", "law_cases.py to tests/laws/methods.py, the tests to tests/methods/, README.md to docs/")
    yield Line("by hand", "record", "the public name in burnish/__init__.py and the command, then `make api`; then delete the folder")


# Options: each is set to another value, and an effect or a refusal is seen


def options_used(entry: str) -> Iterator[Line]:
    from tests.laws.methods import CASES

    cases = [case for case in CASES if (case.room, case.module) == ("experimental", entry)]
    if not cases:
        yield Line("no", "options", "tests/law_cases.py has no case to try them on")
        return
    with tempfile.TemporaryDirectory() as folder:
        tried = {name: try_option(cases[0], name, Path(folder)) for name in own_options(type(cases[0].config()))}
    yield decide(
        "every option used",
        (f"{name} changed nothing" for name, seen in tried.items() if seen == ""),
        "; ".join(f"{name}={seen}" for name, seen in tried.items() if seen),
    )
    for name, seen in tried.items():
        if seen is None:
            yield Line("by hand", f"option {name}", "no other value could be made up")


def own_options(cls: type) -> list[str]:
    """Options that the class itself introduces; another default of a base's option is not one."""
    import inspect

    from burnish.config.base import options

    inherited = {name for base in cls.__mro__[1:] if issubclass(base, cls.__mro__[-2]) for name in options(base)}
    return [name for name in inspect.get_annotations(cls) if name not in inherited]


def others(one: Any, now: Any) -> Iterator[Any]:
    """Values that the option accepts and that are not `now`."""
    from typing import get_args

    from burnish.config.values import members

    guesses: list[Any] = []
    for kind in members(one.kind):
        guesses += {bool: [True, False], int: [1, 2, 3, 5, 8], float: [0.01, 0.1, 0.5, 0.9, 2.0], type(None): [None]}.get(kind, [])
        guesses += get_args(kind)
    for guess in guesses:
        try:
            value = one.check(guess, one.name)
        except ValueError:
            continue
        if value != now:
            yield value


def try_option(case: Any, name: str, folder: Path) -> str | None:
    """What was seen: an effect, a refusal, nothing (""), or None where there was nothing to try."""
    from burnish.config.base import options
    from burnish.config.values import ConfigError

    now = vars(case.config())[name]
    plain, seen = short_run(case, folder), None
    for value in others(options(type(case.config()))[name], now):
        seen = ""
        try:
            if short_run(case, folder, **{name: value}) != plain:
                return f"{value!r} has an effect"
        except ConfigError:
            return f"{value!r} is refused"
    return seen


def short_run(case: Any, folder: Path, **options: Any) -> list[dict[str, float]]:
    """What two steps and an evaluation log, but for what the clock says."""
    import torch
    from tests.laws.methods import COMPLETIONS, build_trainer
    from tests.models.families import tiny_model

    pinned = {"max_steps": 2, "logging_steps": 1, "save_strategy": "no", "overwrite_output_dir": True, "learning_rate": 1e-2}
    model = tiny_model(case.family, dtype=torch.float32)
    evaluated = {"eval_strategy": "steps", "eval_dataset": list(COMPLETIONS[:3])}
    with redirect_stdout(io.StringIO()):
        trainer = build_trainer(case, model, folder / "run", **pinned, **evaluated, **options)
        trainer.train()
    return [{n: v for n, v in line.items() if not n.endswith(("second", "runtime"))} for line in trainer.state.log_history]


# Laws


@dataclass(frozen=True)
class Test:
    file: str
    name: str
    outcome: Literal["passed", "failed", "skipped"]


def run_tests(arguments: list[str]) -> list[Test]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        tests = ET.parse(report).iter("testcase") if report.exists() else ()
        return [Test(one.get("classname", "").rpartition(".")[2], one.get("name", ""), _outcome(one)) for one in tests]


def _outcome(one: ET.Element) -> Literal["passed", "failed", "skipped"]:
    tags = {child.tag for child in one}
    return "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"


def law_tests() -> dict[tuple[str, str], str]:
    """(file, function) → the law whose cases it takes."""
    found = {}
    for file in (ROOT / "tests/laws").glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "cases":
                        found[file.stem, node.name] = ast.literal_eval(mark.args[0])
    return found


def all_laws(entry: str) -> Iterator[Line]:
    from tests.laws.methods import CASES, LAWS

    cases = [case for case in CASES if (case.room, case.module) == ("experimental", entry)]
    names = [case.name for case in cases]
    ran = run_tests(["tests/laws", "-k", " or ".join(names)]) if names else []
    of_law = law_tests()
    for law in [law for law in LAWS if law not in SHARED | {"paper"}]:
        exempt = {case.exempt[law] for case in cases if law in case.exempt}
        mine = [one for one in ran if of_law.get((one.file, one.name.partition("[")[0])) == law and one.outcome != "skipped"]
        broken = [one.name for one in mine if one.outcome == "failed"]
        if len(exempt) and not mine:
            yield Line("yes", f"law {law}", f"does not apply: {', '.join(exempt)}")
        else:
            yield decide(f"law {law}", broken or ([] if mine else ["no test took its cases"]), f"{len(mine)} tests passed")
    lora = [one for one in ran if "lora" in one.name]
    yield decide(
        "with LoRA", [o.name for o in lora if o.outcome == "failed"] or ([] if lora else ["not tried"]), f"{len(lora)} tests passed"
    )


# The list of a stable method, backwards


def demotion(method: str) -> Iterator[Line]:
    module, package = f"burnish.methods.{method}", ROOT / "src/burnish"
    users = [
        file.relative_to(ROOT).as_posix()
        for file in sorted(package.rglob("*.py"))
        if module in set(imported(ast.parse(file.read_text(encoding="utf-8")))) and file != package / f"methods/{method}.py"
    ]
    yield decide("nothing stable uses it", (f"{file} imports it" for file in users), "no room imports it")
    public = [path.rpartition(".")[2] for path in api.exported(ROOT) if path.startswith((f"methods.{method}.", f"config.{method}."))]
    old = {one.old for one in deprecations.load(ROOT).DEPRECATED}
    names = [*(f"burnish.{name}" for name in public), f"burnish {method}"]
    yield decide("its names were deprecated", (f"{name} has no line in deprecated.py" for name in names if name not in old), "all of them")
    page = ROOT / f"docs/{method}.md"
    yield decide("docs page", [f"docs/{method}.md is to become the entry's README.md"] if page.exists() else [], "moved")
    folder = package / "experimental" / method
    debts = [sentence for path, sentence in status.check(ROOT, datetime.date.today()) if folder in path.parents]
    yield decide("an entry again", debts if folder.exists() else [f"{folder.relative_to(ROOT)} is not there"], "in order, with a date")
    yield Line("by hand", "move", "its cases from tests/laws/methods.py to the entry's law_cases.py, its tests from tests/ to the entry's")
    yield Line("by hand", "record", "`make api`, once the versions that deprecated.py names are there")


def main(arguments: list[str]) -> int:
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("entry", nargs="?")
    said.add_argument("--no-laws", action="store_true")
    said.add_argument("--demote", metavar="METHOD")
    sys.path.append(str(ROOT))  # for the table of laws
    given = said.parse_args(arguments)
    known = [path.name for path in status.entry_folders(ROOT)]
    if given.entry in known and not (ROOT / "src/burnish/experimental" / given.entry / "STATUS.toml").is_file():
        said.error(f"src/burnish/experimental/{given.entry}/STATUS.toml is missing; write it as src/burnish/experimental/profit has it.")
    methods = [path.stem for path in (ROOT / "src/burnish/methods").glob("[!_]*.py")]
    if given.demote is None and given.entry not in known:
        said.error(f"name an entry: {', '.join(known)}")
    if given.demote is not None and given.demote not in methods:
        said.error(f"name a stable method: {', '.join(methods)}")
    lines = demotion(given.demote) if given.demote else promotion(given.entry, laws=not given.no_laws)
    verdicts = []
    for line in lines:
        print(line, flush=True)
        verdicts.append(line.verdict)
    print(f"{verdicts.count('yes')} yes, {verdicts.count('no')} no, {verdicts.count('by hand')} by hand.")
    return 1 if "no" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
