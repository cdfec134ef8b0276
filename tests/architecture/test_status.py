"""tools/status.py: what entries owe, each fault with its sentence."""

import datetime
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROFIT = ROOT / "src/burnish/experimental/profit"
TODAY = datetime.date(2026, 12, 1)
GOOD = """\
paper = "Somebody 2026, arXiv:2601.00001"
owner = "Somebody"
added = 2026-11-01
expires = 2027-05-01
evidence = "README.md"
promotes_to = "methods/one.py"
missing = []
"""


@pytest.fixture
def entry(tmp_path):
    """An entry in order, in a tree of its own with a core of 50 lines."""
    folder = tmp_path / "src/burnish/experimental/one"
    (folder / "tests").mkdir(parents=True)
    for name in ("__init__.py", "config.py", "method.py", "README.md"):
        (folder / name).write_text("a = 1\n")
    (folder / "tests/test_one.py").write_text("def test_one():\n    pass\n")
    (folder / "STATUS.toml").write_text(GOOD)
    (tmp_path / "src/burnish/core.py").write_text("a = 1\n" * 50)
    return folder


def owed(entry, today=TODAY):
    root = entry.parents[3]
    command = [sys.executable, str(ROOT / "tools/status.py"), "--root", str(root), "--today", str(today)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    lines = [line.removeprefix("src/burnish/experimental/") for line in done.stdout.splitlines()]
    assert done.returncode == (0 if lines == ["Experimental entries in order: one."] else 1)
    return lines


def write(entry, old, new):
    assert old in GOOD
    (entry / "STATUS.toml").write_text(GOOD.replace(old, new))


def test_in_order(entry):
    assert owed(entry) == ["Experimental entries in order: one."]
    assert owed(entry, "2027-05-01") == ["Experimental entries in order: one."], "its last day"


@pytest.mark.parametrize("field", ["paper", "owner", "evidence"])
def test_a_field_that_says_nothing(entry, field):
    (line,) = [line for line in GOOD.splitlines() if line.startswith(field)]
    write(entry, line, "")
    assert owed(entry) == [f"one/STATUS.toml: has no {field}; add it: a string that says something."]
    write(entry, line, f'{field} = " "')
    assert owed(entry) == [f"one/STATUS.toml: says {field} = ' '; it must be a string that says something."]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("added = 2026-11-01\n", "", "has no added; add it: a date such as 2027-01-31, without quotes."),
        ("= 2027-05-01", '= "soon"', "says expires = 'soon'; it must be a date such as 2027-01-31, without quotes."),
        ("= 2027-05-01", "= 2028-05-01", "expires only on 2028-05-01; give a date within a year."),
        ("missing = []", "missing = [1]", "says missing = [1]; it must be a list of strings."),
        ("missing = []", "missing = []\nmood = 'good'", "has a field 'mood' that nothing reads; remove it."),
        ('"methods/one.py"', '"core"', "says promotes_to = 'core'; name a file of methods/, such as 'methods/sft.py'."),
    ],
)
def test_a_field_that_says_something_else(entry, old, new, sentence):
    write(entry, old, new)
    assert owed(entry) == [f"one/STATUS.toml: {sentence}"]


def test_expired(entry):
    (line,) = owed(entry, "2027-05-02")
    assert line == (
        "one/STATUS.toml: expired on 2027-05-01: promote the entry (python tools/promote.py one), "
        "give it a new date with new evidence, or delete its folder."
    )


def test_a_missing_file(entry):
    for name in ("README.md", "STATUS.toml"):
        (entry / name).unlink()
    assert owed(entry) == [
        "one/README.md: is missing; write it as src/burnish/experimental/profit has it.",
        "one/STATUS.toml: is missing; write it, with paper, owner, added, expires, evidence, promotes_to, missing.",
    ]


def test_not_toml(entry):
    (entry / "STATUS.toml").write_text("owner =\n")
    (line,) = owed(entry)
    assert line.startswith("one/STATUS.toml: is not TOML (")


def test_no_tests(entry):
    shutil.rmtree(entry / "tests")
    assert owed(entry) == ["one/tests: holds no test; write tests/test_*.py, with each equation worked by hand."]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("@pytest.mark.skip\ndef test_two(): pass", "skip"),
        ("@pytest.mark.skipif(True)\ndef test_two(): pass", "skipif"),
        ("pytestmark = pytest.mark.xfail", "xfail"),
        ("from pytest import skip\nskip()", "skip"),
        ("numpy = pytest.importorskip('numpy')", "importorskip"),
    ],
)
def test_a_test_that_is_left_out(entry, line, name):
    (entry / "tests/test_one.py").write_text(f"import pytest\ndef test_one(): pass\n{line}\n")
    (said,) = owed(entry)
    where = 4 if line.startswith("from") else 3
    assert said == f"one/tests/test_one.py: line {where}: {name} leaves a test out; mend the test, or delete what it tests."


def test_a_layer_that_outweighs_the_core(entry):
    (entry / "method.py").write_text("a = 1\n" * 48)
    assert owed(entry) == ["Experimental entries in order: one."], "50 lines against 50"
    (entry / "method.py").write_text("a = 1\n" * 49)
    assert owed(entry)[-1] == "src/burnish/experimental: has 51 lines, the core 50; promote or delete entries."


def test_a_folder_without_anything_of_an_entry_is_one_all_the_same(entry):
    """Or a method without STATUS.toml would stand outside all rules."""
    other = entry.parent / "two"
    other.mkdir()
    (other / "method.py").touch()
    assert "two/STATUS.toml: is missing; write it, with paper, owner, added, expires, evidence, promotes_to, missing." in owed(entry)


def test_the_tree_is_in_order():
    done = subprocess.run([sys.executable, str(ROOT / "tools/status.py")], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
