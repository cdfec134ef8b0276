"""`burnish inspect samples`, on lines as a run writes them."""

from __future__ import annotations

import pytest

from burnish.cli.main import main
from burnish.demo import load_path
from burnish.report.samples import SampleFiles


def line(step: int, **changes):
    said = {"step": step, "set": "train", "group": "rows:0", "sample": 1, "prompt": "", "prompt_tokens": [5, 6], "completion": "x"}
    said |= {"finish_reason": "stop", "tokens": [7, 8, 9], "logp": [-0.1, None, -0.2], "trained": [1, 0, 1], "reward": 0.5}
    return said | {"rewards": {"a": 0.5, "b": {"failure": "took too long", "detail": ""}}, "advantage": -1.25, "version": step} | changes


@pytest.fixture
def run(tmp_path):
    files = SampleFiles(tmp_path)
    files.append([line(0), line(0, set="eval", reward=None, rewards={"a": None})])
    files.append([line(1)])
    return tmp_path


def shown(capsys, *words) -> str:
    assert main(["inspect", "samples", "--model_name_or_path", str(load_path()), *words]) == 0
    return capsys.readouterr().out


def test_masks_and_worth(run, capsys):
    """Of two prompt tokens and three after them, the first and the third are trained."""
    out = shown(capsys, "--output_dir", str(run), "--rows", "1")
    assert "rows:0: 5 tokens, 2 trained (40%)" in out
    assert out.count("⟦") == 3  # the legend, and two runs
    assert "step 0, train, sample 1: reward 0.5 (a 0.5, b failed: took too long), advantage -1.25, stop" in out


def test_which_are_shown(run, capsys):
    out = shown(capsys, "--output_dir", str(run), "--set", "eval")
    assert "reward none (a none)" in out
    assert out.count("step ") == 1
    assert shown(capsys, "--output_dir", str(run), "--step", "1").count("step 1") == 1


def test_nothing_like_that(run, capsys):
    assert main(["inspect", "samples", "--output_dir", str(run), "--model_name_or_path", str(load_path()), "--step", "7"]) == 2
    assert capsys.readouterr().err == f"error: No sample in {run} is like that; look at step and set, or leave them out.\n"
    assert main(["inspect", "samples", "--output_dir", "nowhere"]) == 2
    assert capsys.readouterr().err == "error: output_dir='nowhere' has no samples; give the output_dir of a run of grpo or rloo.\n"
