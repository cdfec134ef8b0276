"""The tables of docs/migrate-from-trl.md: every option, argument, method and name of TRL 1.16 is in them, none without words."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

from burnish.config import SFTConfig
from burnish.config.base import options
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def migration():
    spec = importlib.util.spec_from_file_location("migration", ROOT / "tools" / "migration.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["migration"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables():
    """Name → the table on the page."""
    page = (ROOT / "docs/migrate-from-trl.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^<!-- made: (\w+) -->\n([\s\S]*?)^<!-- end -->$", page, re.MULTILINE))


def named(table: str) -> set[str]:
    return {name for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}


def test_every_option_has_its_row(migration, tables):
    trl = migration.recorded()
    assert trl["trl"] == "1.16.0"
    shared, seen = set(trl["TrainingArguments"]), 0
    for name, defaults in trl["configs"].items():
        assert set(defaults) - shared <= named(tables[name])
        assert set(defaults) & shared <= named(tables["shared"]) or name in migration.OTHERS
        seen += len(defaults)
    assert seen > 1100


def test_everything_else_has_its_row(migration, tables):
    trl = migration.recorded()
    assert {name for names in trl["arguments"].values() for name in names} <= named(tables["arguments"])
    assert set(trl["methods"]) <= named(tables["methods"])
    assert {name for names in trl["doors"].values() for name in names} <= named(tables["names"])
    assert {option for values in trl["values"].values() for option in values} <= named("".join(tables.values()))


def test_the_scripts_that_are_listed_are_those_that_are_run():
    from tests.trl_scripts.online import GRPO, RLOO
    from tests.trl_scripts.scripts import DPO, KTO, REWARD, SFT

    page = (ROOT / "docs/migrate-from-trl.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (README|quickstart|\w+_trainer) \| (.+?) \| \d+ \|", page, re.MULTILINE)
    assert [", ".join(one) for one in listed] == [*SFT, *DPO, *KTO, *REWARD, *GRPO, *RLOO]


@pytest.mark.parametrize(
    ("name", "default", "here"),
    [
        ("learning_rate", 2e-05, "the same"),
        (
            "gradient_checkpointing",
            True,
            "the same; its default is `False`: it costs about a third more time; `burnish inspect` says what",
        ),
        ("bf16", None, "`bf16=True` is `compute_dtype='bfloat16'`"),
        ("packing", False, "taken, and changes nothing: nothing is ever padded"),
        ("push_to_hub", False, "refused: nothing is uploaded; save the model and upload output_dir yourself."),
        ("tf32", None, "refused, but for `False`: call torch.set_float32_matmul_precision('high') before training."),
    ],
)
def test_each_kind_of_row(migration, name, default, here):
    assert migration.row(SFTConfig, name, default).here.startswith(here)


def test_every_default_of_trl_said_at_once_is_taken(migration):
    """As a script that writes out all of them: nothing is refused, for having no effect beside another one either."""
    for name, defaults in migration.recorded()["configs"].items():
        if name != "DatasetConfig":  # which needs a path
            assert migration.config_of(name)(**defaults)


def test_an_option_without_words_stops_the_tool(migration):
    with pytest.raises(SystemExit, match="SFTConfig knows nothing of TRL's new_in_trl; give it a line in src/burnish/config/renamed.py"):
        migration.row(SFTConfig, "new_in_trl", 1)


def test_a_default_that_is_refused_stops_the_tool(migration):
    with pytest.raises(SystemExit, match="SFTConfig refuses TRL's own default: nothing is uploaded"):
        migration.row(SFTConfig, "push_to_hub", True)


def test_another_default_needs_a_reason(migration):
    assert options(SFTConfig)["seed"].default == 42
    with pytest.raises(SystemExit, match="SFTConfig.seed has another default than TRL's, 7; say why"):
        migration.row(SFTConfig, "seed", 7)


def test_an_argument_without_words_stops_the_tool(migration):
    with pytest.raises(SystemExit, match="Nothing is said of the argument new_in_trl"):
        migration.refused("new_in_trl")
