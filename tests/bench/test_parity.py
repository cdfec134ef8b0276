"""How far apart two logs are, by hand, and names that are no case's."""

import math
from argparse import Namespace
from pathlib import Path

import pytest
from bench.parity import Case, apart, compare

from bench import parity, plan


@pytest.mark.parametrize(
    ("mine", "other", "least", "gap"),
    [
        (3.0, 2.0, 0.0, 0.5),
        (0.75, 0.5, 1.0, 0.25),  # absolute below 1
        (0.0, 0.0, 0.0, 0.0),
        (1e-9, 0.0, 0.0, math.inf),
        (math.nan, 1.0, 0.0, math.inf),
        (1.0, math.nan, 1.0, math.inf),
        (math.inf, math.inf, 0.0, math.inf),
    ],
)
def test_apart(mine, other, least, gap):
    assert apart(mine, other, least=least) == gap


def test_the_largest_gap_of_a_step_counts():
    """Losses 2.0 and 2.1 beside 2.0: 0.05. A norm that is no number in the first step is not forgotten in the second."""
    ours = [{"loss": 2.0, "grad_norm": math.nan, "kl": 0.5}, {"loss": 2.1, "grad_norm": 1.0, "kl": 0.0}]
    theirs = [{"loss": 2.0, "grad_norm": 1.0, "kl": 0.25}, {"loss": 2.0, "grad_norm": 1.0, "kl": 0.0}]
    gaps = compare("a case", ours, theirs, Case(rows=[], metrics={"kl": 1e-4}))
    assert gaps == {"loss": pytest.approx(0.05), "grad_norm": math.inf, "kl": 0.25}


def options(**changes):
    return Namespace(only="", on=None, library=None, model=Path("none"), threads=1, **changes)


def test_no_case_is_no_agreement():
    cases = {"sigmoid": Case(rows=[], models=("random",)), "kto": Case(rows=[])}
    for only, on in (("typo", None), ("sigmoid", "SmolLM2")):
        given = options()
        given.only, given.on = only, on
        with pytest.raises(SystemExit, match=f"--only '{only}': no case.* begins so; there are sigmoid; kto"):
            parity.main(cases, given)


def test_no_setting_is_not_all_within(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.plan", "--only", "GPT-3"])
    with pytest.raises(SystemExit) as ended:
        plan.main()
    assert ended.value.code == 2
    assert "--only GPT-3 names no setting; there are:\nSmolLM2 135M, float32, 512 tokens\n" in capsys.readouterr().err
