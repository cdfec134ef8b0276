"""What recipes say of themselves: their headers, their commands, and that nothing is claimed that was not measured."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs.pages import Block, burnish_words, commands
from tests.docs.reading import parse
from tests.recipes.small import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from headers import KNOWN, SIZES, read_recipe, recipes  # noqa: E402

RECIPES = recipes(ROOT)
GOOD = """\
# One thing, learnt.
#
# command:  burnish sft --config recipes/laptop/one.yaml
# hardware: two cores,
#           and memory
# time:     271 s
# curve:    loss 2.5 at the start, 1,024 after 8 steps
# measured: docs/one.md
#
# It is so because.

max_steps: 8
"""


def test_every_file_is_a_recipe_of_a_size_or_its_rewards():
    assert {path.parent.name for path in (ROOT / "recipes").rglob("*.yaml")} == set(SIZES)
    own = [path for path in (ROOT / "recipes").rglob("*.py") if path.name == f"{path.stem.removesuffix('_rewards')}_rewards.py"]
    assert all(path.with_name(path.name.replace("_rewards.py", ".yaml")).is_file() for path in own)
    assert len(RECIPES) + len(own) == len([path for path in (ROOT / "recipes").rglob("*.*") if "__pycache__" not in path.parts])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: one.name)
def test_commands_are_understood(recipe, monkeypatch):
    """As they stand there, with every option of the recipe; what comes before and after it, too."""
    monkeypatch.chdir(ROOT)
    texts = [recipe.notes[name] for name in ("command", "or", "then", "before") if name in recipe.notes]
    texts += re.findall(r"\((burnish .*?)\)", recipe.notes.get("plan", ""))
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for text in texts:
        (words,) = commands(Block(page=recipe.name, line=1, language="sh", text=text.replace("'", "")))
        if (given := burnish_words(words)) is not None and words[0] != "pip":
            parse(given, recipe.name)
        elif words[0] == "make":
            assert set(words[1:]) <= set(targets), recipe.name
    assert (ROOT / "src/burnish/methods" / f"{recipe.method}.py").is_file()


def test_what_runs_on_several_gpus_says_how_many():
    for recipe in RECIPES:
        assert ("--devices" in recipe.notes["command"]) == (recipe.path.parent.name == "one_node"), recipe.name


def tried(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipes" / "laptop" / "one.yaml"
    path.parent.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "one.md").write_text("2.5 nats, then 1,024, in 271 s")
    path.write_text(text)
    return path


def test_a_header_is_read(tmp_path):
    recipe = read_recipe(tried(tmp_path, GOOD))
    assert (recipe.name, recipe.method, recipe.title) == ("recipes/laptop/one.yaml", "sft", "One thing, learnt.")
    assert recipe.notes["hardware"] == "two cores, and memory"
    assert recipe.reasons == "It is so because."
    assert set(recipe.notes) < set(KNOWN)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("271 s", "270 s", "time says 270, which docs/one.md does not"),
        ("1,024", "1,025", "curve says 1,025, which docs/one.md does not"),
        ("2.5 at", "2.49 at", "curve says 2.49, which docs/one.md does not"),
        ("docs/one.md", "not yet", "time claims what was not measured; begin it with `not measured yet`"),
        ("docs/one.md", "docs/two.md", "measured names docs/two.md, which is not there"),
        ("laptop/one", "laptop/two", "its command names another file than --config recipes/laptop/one.yaml"),
        ("# time:     271 s\n", "", "its header lacks time"),
        ("# It is so because.\n", "", "does not say why its options are what they are"),
        ("learnt.\n", "learnt\n", "opens with one sentence"),
        ("# time:", "# thyme:", "line 6: 'thyme' is none of"),
        ("# time:  ", "# curve:", "line 7: 'curve' is given twice"),
        ("#           and", "# and", "line 5: '# and memory' is no note"),
    ],
)
def test_a_header_that_is_wrong_is_refused(tmp_path, old, new, fault):
    assert old in GOOD
    with pytest.raises(ValueError, match=re.escape(fault)):
        read_recipe(tried(tmp_path, GOOD.replace(old, new, 1)))
