"""Metrics as columns, and what is said of them."""

from burnish.report.page.series import Adviser, series_of


def test_columns():
    lines = [
        {"step": 1, "loss": 0.123456789, "num_tokens": 123456789, "note": "text"},
        {"step": 1, "eval_loss": 2.0},
        {"step": 2, "loss": float("nan")},
        {"step": 3, "loss": "inf", "flag": True},
        {"loss": 1.0},
    ]
    assert series_of(lines) == {"loss": ([1, 2, 3], [0.123457, "nan", "inf"]), "num_tokens": ([1], [123456789]), "eval_loss": ([1], [2.0])}


def test_advice_after_three_log_lines_in_a_row():
    """Of evaluations, which have no reward of their own name, nothing is counted."""
    tied = {"reward": 1.0, "frac_groups_with_signal": 0.0}
    lines = [{"step": 1, **tied}, {"step": 2, **tied}, {"step": 2, "eval_reward": 0.0}, {"step": 3, **tied}]
    adviser = Adviser()
    assert adviser.of(lines[:2]) == []
    (said,) = adviser.of(lines[2:])
    assert said["step"] == 3
    assert said["said"].startswith("Every group is tied, all rewards 1:")
