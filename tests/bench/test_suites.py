"""Work by count, and rows that are what their suite says."""

import pytest
from bench.__main__ import parsed
from bench.suites import NAMES, grpo, sft, suite
from bench.suites.preference import labelled


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
