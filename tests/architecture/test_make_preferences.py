"""The pairs that `tools/make_preferences.py` makes of dialogues."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pair_replies(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield importlib.import_module("make_preferences").pair_replies
    for name in ("make_preferences", "make_dialogues", "registry"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("count", "pairs"), [(6, 6), (7, 6)])
def test_two_pairs_are_of_the_same_replies(pair_replies, count, pairs):
    """Seven exchanges: one is left out, and the six others are three times two pairs (a, b) and (b, a)."""
    made = pair_replies([(f"question {i}", f"reply {i}") for i in range(count)])
    both = [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in made]
    assert len(set(both)) == pairs
    assert {(b, a) for a, b in both} == set(both)
    assert all(pair["prompt"][0]["content"].split()[1] == chosen.split()[1] for pair, (chosen, _) in zip(made, both, strict=True))


def test_no_reply_is_preferred_to_itself(pair_replies):
    """Three of six questions have the same reply: as many as are elsewhere, so each is paired with one of those."""
    made = pair_replies([(f"question {i}", "Paris" if i < 3 else f"reply {i}") for i in range(6)])
    assert all(pair["chosen"] != pair["rejected"] for pair in made)
