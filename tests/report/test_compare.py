"""Runs side by side, each number worked by hand."""

import math
from pathlib import Path

import pytest

from burnish.report.compare import Difference, compare, seconds
from burnish.report.runs import RunError, RunRecord


def record(name="a", *, metrics=(), events=(), config=None, environment=None, data=None):
    return RunRecord(
        folder=Path(name),
        config=config or {},
        metrics=tuple(metrics),
        events=tuple(events),
        environment=environment or {},
        data=data or {},
    )


def event(name, step=0, **facts):
    return {"event": name, "step": step, **facts}


A = record(
    "a",
    metrics=[
        {"step": 10, "reward": 0.5, "reward_stderr": 0.03, "loss": 0.2, "kl": 0.0},
        {"step": 10, "eval_reward": 0.75, "eval_reward_stderr": 0.03, "eval_loss": 2.0, "eval_runtime": 3.0},
        {"step": 20, "reward": 0.75, "reward_stderr": 0.03, "loss": 0.1, "kl": 0.1, "only_here": 1.0},
        {"step": 20, "eval_reward": 0.6, "eval_reward_stderr": 0.03, "eval_loss": 3.0, "eval_runtime": 4.0},
    ],
    config={"learning_rate": 1e-4, "seed": 1, "output_dir": "a", "only_a": 3},
)
B = record(
    "b",
    metrics=[
        {"step": 10, "reward": 0.60, "reward_stderr": 0.04, "loss": math.nan, "kl": 0.2},
        {"step": 10, "eval_reward": 0.80, "eval_reward_stderr": 0.04, "eval_loss": 1.5, "eval_runtime": 3.0},
    ],
    config={"learning_rate": 1e-4, "seed": 2, "output_dir": "b"},
)


def by_name(found):
    return {metric.name: metric for metric in found.metrics}


def test_a_difference_beyond_two_standard_errors():
    """0.60 ± 0.04 against 0.75 ± 0.03: -0.15 ± sqrt(0.0016 + 0.0009) = ± 0.05, three of them. 0.80 against 0.60: 0.2 ± 0.05, four."""
    found = by_name(compare([A, B]))
    apart = found["reward"].difference
    assert apart[0] is None
    assert (apart[1].value, apart[1].stderr, apart[1].beyond) == (pytest.approx(-0.15), pytest.approx(0.05), True)
    assert found["eval_reward"].difference[1].value == pytest.approx(0.2)
    assert found["kl"].difference[1].stderr is None
    assert not found["kl"].difference[1].beyond, "without a standard error nothing can be said"
    assert [Difference(value=value, stderr=0.05).beyond for value in (0.0999, 0.1001, -0.1001)] == [False, True, True]


def test_the_last_and_the_best_of_each():
    """More reward is better, and less loss of an evaluation; of the loss of a policy that learns from rewards, and of kl, nothing is."""
    found = by_name(compare([A, B]))
    assert [(one.value, one.stderr, one.step) for one in found["eval_reward"].last] == [(0.6, 0.03, 20), (0.8, 0.04, 10)]
    assert [(one.value, one.stderr, one.step) for one in found["eval_reward"].best] == [(0.75, 0.03, 10), (0.8, 0.04, 10)]
    assert [(one.value, one.step) for one in found["eval_loss"].best] == [(2.0, 10), (1.5, 10)]
    assert found["loss"].best == found["kl"].best == (None, None)
    assert list(found) == ["eval_loss", "eval_reward", "reward", "loss", "kl"], "shared ones, those that matter first"
    alone = by_name(compare([record(metrics=[{"step": 1, "loss": math.nan}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.7}]), B]))
    assert [one and one.value for one in alone["loss"].last] == [0.7, pytest.approx(math.nan, nan_ok=True)]


def test_a_number_that_is_not_finite_is_never_the_best():
    runs = [record(metrics=[{"step": i, "loss": value} for i, value in enumerate(column)]) for column in ([math.nan, 2.0, 3.0], [math.inf])]
    (loss,) = compare(runs).metrics
    assert (loss.best[0].value, loss.best[0].step, loss.best[1]) == (2.0, 1, None)


def test_metrics_are_chosen_by_name():
    assert list(by_name(compare([A, B], ["eval_*"]))) == ["eval_loss", "eval_reward"]
    (only,) = compare([A, B], ["only_here"]).metrics
    assert (only.last[0].value, only.last[1], only.difference) == (1.0, None, (None, None))
    with pytest.raises(RunError, match=r"^No run has a metric 'rewrd'; the nearest is 'reward'\.$"):
        compare([A, B], ["rewrd"])


def test_as_the_runs_were_at_a_step():
    found = compare([A, B], at=15)
    assert [one.value for one in by_name(found)["reward"].last] == [0.5, 0.6]
    assert [one.steps for one in found.runs] == [15, 10]
    with pytest.raises(RunError, match=r"^a has logged nothing by step 9; its first line is of step 10\.$"):
        compare([A, B], at=9)


def test_only_options_that_differ():
    assert compare([A, B]).config == {"seed": (1, 2), "only_a": (3, None)}


def test_versions_are_those_of_the_last_start():
    events = [event("start", versions={"torch": "1"}), event("start", versions={"torch": "2"}, world_size=4)]
    here = {"python": "3.11", "git": {"commit": "0123456789abcdef", "dirty": True}, "gpus": [{"name": "H100"}], "cpu": {"model": "x"}}
    found = compare([record(events=events, environment=here), record(data={"train": {"fingerprint": "f" * 64, "examples": 9000}})])
    assert found.versions == {
        "torch": ("2", None),
        "git": ("0123456789ab and changes", None),
        "python": ("3.11", None),
        "machine": (["H100"], None),
        "processes": (4, None),
    }
    assert found.data == {"train": (None, "9,000 examples, ffffffffffff")}


def test_seconds_by_phase():
    """Log lines after 10 and 20 steps: 1,000 tokens at 50 a second, 20 s; 500 more at 100, 5 s. Two steps share a sampling of 2 s and a
    scoring of 0.5 s: 5 of them in 10 steps, 10 s and 2.5 s, which leaves 7.5 s for training. The next 10 steps had one of 0.6 s and none:
    3 s, and 2 s of training. Evaluations took 3 and 1 s. With one sampling for each step of 2 iterations it is the same."""
    rows = [
        {"step": 0, "eval_runtime": 3.0},
        {"step": 10, "num_tokens": 1000, "tokens_per_second": 50.0, "time/sampling": 2.0, "time/scoring": 0.5},
        {"step": 20, "num_tokens": 1500, "tokens_per_second": 100.0, "time/sampling": 0.6},
        {"step": 20, "eval_new_runtime": 1.0},
    ]
    for config in ({"steps_per_generation": 2, "num_iterations": 1}, {"steps_per_generation": 1, "num_iterations": 2}):
        assert seconds(rows, config) == pytest.approx({"sampling": 13.0, "scoring": 2.5, "training": 9.5, "evaluation": 4.0})
    every = [{"step": step, "num_tokens": 100 * step, "tokens_per_second": 10.0} for step in (1, 2, 3)]
    every[0]["time/sampling"] = every[2]["time/sampling"] = 4.0
    shared = seconds(every, {"steps_per_generation": 2})
    assert shared == pytest.approx({"sampling": 8.0, "scoring": 0.0, "training": 22.0, "evaluation": 0.0}), "of steps 1 and 3"
    tied = {"step": 2, "num_tokens": 0, "tokens_per_second": 0.0, "time/sampling": 3.0, "time/training": 0.5}
    assert seconds([tied], {})["sampling"] == 6.0, "in two steps"
    assert seconds([tied], {})["training"] == 1.0
    events = [event("save", 10, seconds=1.5), event("save", 20, seconds=2.0)]
    runs = [record(metrics=rows, events=events, config={"steps_per_generation": 2}), record(metrics=rows[1:2])]
    first, second = compare(runs, at=15).runs
    assert first.seconds == {"sampling": 10.0, "scoring": 2.5, "training": 7.5, "evaluation": 3.0, "saving": 1.5}
    assert (first.tokens, first.steps) == (1000, 15)
    assert second.seconds == {"sampling": 20.0, "scoring": 5.0}, "a step of its own for each sampling, as far as is known"


def test_how_each_ended():
    """Without events it is not known; the rank that fails need not be the one that wrote the start."""
    found = compare([record(), record(events=[event("start"), event("failure", 3, pid=7, why="no")])])
    assert [run.status for run in found.runs] == ["unknown", "failed"]


def test_more_of_a_reward_models_margin_is_better():
    (margin,) = compare([record(metrics=[{"step": 1, "margin": 0.5}, {"step": 2, "margin": 0.2}])]).metrics
    assert (margin.best[0].value, margin.best[0].step) == (0.5, 1)
