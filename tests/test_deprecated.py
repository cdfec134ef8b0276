"""The table of deprecated names, with entries of the tests' own: each kind of old name works, warns, and goes when its time has come."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest

from burnish import deprecated
from burnish.cli.main import COMMANDS, Command, main
from burnish.config.base import Config, config, option
from burnish.config.parse import parse
from burnish.deprecated import Deprecated, with_old_names

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("deprecations", ROOT / "tools" / "deprecations.py")
deprecations = importlib.util.module_from_spec(_spec)
sys.modules["deprecations"] = deprecations
_spec.loader.exec_module(deprecations)

OPTION = Deprecated(old="ToyConfig.max_len", new="ToyConfig.max_length", since="0.2.0", removed_in="0.4.0")
NAME = Deprecated(old="burnish.SFT", new="burnish.SFTTrainer", since="0.2.0", removed_in="0.4.0")
COMMAND = Deprecated(old="burnish try out", new="burnish toy", since="0.2.0", removed_in="0.4.0")
SENTENCE = "ToyConfig.max_len is deprecated since Burnish 0.2.0 and goes in 0.4.0; use ToyConfig.max_length."


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setattr(deprecated, "DEPRECATED", (OPTION, NAME, COMMAND))


@pytest.fixture
def toy():
    @config
    class ToyConfig(Config):
        max_length: int | None = option(8, "Longest row.", at_least=2)

    return ToyConfig


def test_an_old_option_becomes_the_new_one_and_says_so(toy):
    with pytest.warns(DeprecationWarning, match="is deprecated since") as seen:
        made = toy(max_len=5)
    assert (made.max_length, made.notes) == (5, (SENTENCE,)), "the note is shown when the run starts"
    assert [str(one.message) for one in seen] == [SENTENCE]
    assert seen[0].filename == __file__, "the line that is to be changed"
    with pytest.warns(DeprecationWarning, match="is deprecated since"):
        assert toy(max_len=None).max_length is None


def test_an_old_option_is_checked_as_the_new_one(toy):
    warned = pytest.warns(DeprecationWarning, match="is deprecated since")
    with warned, pytest.raises(ValueError, match="max_len must be an integer of at least 2 or None, not 1"):
        toy(max_len=1)
    with warned, pytest.raises(ValueError, match="say different things of max_length"):
        toy(max_len=4, max_length=5)


def test_an_old_option_on_the_command_line_and_in_yaml(toy, tmp_path):
    (tmp_path / "run.yaml").write_text("max_len: 6\n")
    file = ["--config", str(tmp_path / "run.yaml")]
    for words, length in ((["--max_len", "5"], 5), (file, 6), ([*file, "--max_len", "7"], 7), ([*file, "--max_length", "7"], 7)):
        with pytest.warns(DeprecationWarning, match="is deprecated since"):
            assert parse(words, toy).max_length == length


def test_the_new_option_is_silent(toy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert toy(max_length=5).notes == ()


def test_an_old_name_of_the_public_door():
    get = with_old_names({"SFTTrainer": 7}.__getitem__)
    with pytest.warns(DeprecationWarning, match="is deprecated since") as seen:
        assert get("SFT") == 7
    assert str(seen[0].message) == "burnish.SFT is deprecated since Burnish 0.2.0 and goes in 0.4.0; use burnish.SFTTrainer."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get("SFTTrainer") == 7
    with pytest.raises(KeyError):
        get("other")


def test_an_old_command(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "toy", Command("Toy.", lambda args: print(*args) or 0))
    assert main(["try", "out", "--a", "1"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (
        "--a 1\n",
        "warning: burnish try out is deprecated since Burnish 0.2.0 and goes in 0.4.0; use burnish toy.\n",
    )
    assert main(["toy", "x"]) == 0
    assert capsys.readouterr() == ("x\n", "")


def check(version, *table, known=None):
    return deprecations.check(table, version, known)


def test_a_name_goes_in_the_version_that_says_so():
    assert check("0.3.9", OPTION, NAME, COMMAND) == []
    assert check("0.4.0", OPTION) == [
        "ToyConfig.max_len was to go in 0.4.0 and this is 0.4.0: delete the line, and what keeps the name working."
    ]
    assert len(check("0.10.0", OPTION, NAME)) == 2, "0.10 is after 0.4"


def test_a_line_that_cannot_be_meant():
    late = Deprecated(old="ToyConfig.a", new="ToyConfig.b", since="0.4.0", removed_in="0.4.0")
    mixed = Deprecated(old="ToyConfig.a", new="burnish.b", since="0.2.0", removed_in="0.4.0")
    assert check("0.1.0", late) == ["ToyConfig.a would go in 0.4.0, before anybody was told in 0.4.0; give a later version."]
    assert check("0.1.0", mixed) == [
        "ToyConfig.a → burnish.b must be two names of one kind: 'SFTConfig.old_option', 'burnish.OldName' or 'burnish old-command'."
    ]
    assert check("0.1.0", OPTION, known=set()) == [
        "ToyConfig.max_len leads to ToyConfig.max_length, which is no stable name; name one of tests/api/stable.txt."
    ]
    assert check("0.1.0", OPTION, known={"ToyConfig.max_length", "ToyConfig.max_len"}) == [
        "ToyConfig.max_len is deprecated and still there under its own name; delete that, the table keeps it working."
    ]


def test_the_table_itself():
    spec = deprecations.load(ROOT)
    assert deprecations.check(spec.DEPRECATED, deprecations.version_of(ROOT)) == []
