"""Work by count, and rows that are what their suite says."""

import sys
from pathlib import Path

import pytest
from bench.__main__ import parsed
from bench.suites import NAMES, grpo, sft, start, suite
from bench.suites.preference import labelled, sides

from tests.bench.test_harness import options


def test_work_of_a_step():
    """10 weights in the layers, 3 in the head. Trained: 6 · (10 · 5 + 3 · 4) = 372. Beside it a reference reads 5 tokens and scores 4:
    2 · (50 + 12) = 124."""
    facts = {"layer_parameters": 10, "head_parameters": 3}
    assert sft.flop(facts, tokens=5, trained=4, steps=2) == [372.0, 372.0]
    assert sft.flop(facts, tokens=5, trained=4, steps=1, read=5, scored=4) == [496.0]


def test_work_of_a_grpo_step():
    """7 prompt tokens and 4 sampled ones, through the layers forward to sample (2) and both ways to train (6), the head for the sampled
    ones: 8 · (10 · 11 + 3 · 4) = 976."""
    facts = {"layer_parameters": 10, "head_parameters": 3, "sampled_tokens": [4.0]}
    assert grpo.flop(facts, prompt_tokens=7) == [976.0]


def test_labelled_rows_keep_their_step():
    """Two steps of two pairs: all four rows of a step before the next step's."""
    pairs = [{"prompt": str(i), "chosen": "a", "rejected": "b"} for i in range(4)]
    assert [(row["prompt"], row["label"]) for row in labelled(pairs, 2)] == [
        ("0", True), ("1", True), ("0", False), ("1", False), ("2", True), ("3", True), ("2", False), ("3", False),
    ]  # fmt: skip


@pytest.fixture
def trl(tmp_path):
    python = tmp_path / "own/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    return options(tmp_path, trl_python=python)


def test_both_sides_of_kto_on_pairs_have_a_step_s_rows(trl):
    """Given pairs, TRL would make all chosen rows of the set and then all rejected ones, and the measured step would have the wrong ones:
    of two steps of two pairs it is given rows 0 to 3 of the first and 4 to 7 of the second."""
    pairs = [{"prompt": str(i), "chosen": "a", "rejected": "b"} for i in range(4)]
    ours, *theirs = sides("kto-pairs", pairs, 2, trl)
    assert ours.spec["rows"] == pairs
    assert ours.spec["options"]["batch_size"] == 2
    for side in theirs:
        its = side.spec["options"]
        assert its["per_device_train_batch_size"] * its.get("gradient_accumulation_steps", 1) == 4
        assert [row["prompt"] for row in side.spec["rows"]] == ["0", "1", "0", "1", "2", "3", "2", "3"]


def test_both_sides_of_a_start_repeat_what_is_cheap(trl):
    repeats = {case.name: tuple(side.repeats for side in case.sides) for case in start.cases(trl)}
    assert repeats == {"help": (10, 10), "sft-help": (10, 3), "typo": (10, 3), "import": (10, 10), "import-trainer": (3, 3)}


@pytest.mark.parametrize("name", NAMES)
def test_every_suite_says_what_it_does(name):
    assert suite(name).TITLE
    assert suite(name).__doc__.count(".") > 1


def test_without_a_name_all_suites_are_measured(monkeypatch, capsys):
    """As `make bench` does. Python 3.11 holds `choices` against the empty list."""
    monkeypatch.setattr("sys.argv", ["bench", "--short"])
    assert parsed().suites == []
    monkeypatch.setattr("sys.argv", ["bench", "sft", "sftt"])
    with pytest.raises(SystemExit):
        parsed()
    assert "there is no suite 'sftt'; there are sft, preference" in capsys.readouterr().err


def test_no_file_hides_a_module_of_python():
    """Of a file that is run by its path (`python bench/torture.py`) the folder comes first where modules are looked for."""
    root = Path(__file__).parents[2]
    names = {file.stem for folder in ("bench", "tools") for file in (root / folder).glob("*.py")}
    assert "torture" in names
    assert names & sys.stdlib_module_names == set()
