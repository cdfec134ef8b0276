"""Where time goes, with a clock that is moved by hand."""

import pytest

from burnish.report import clock as clock_module
from burnish.report.clock import WINDOW, Clock, words
from burnish.report.live import spark, wrapped


@pytest.fixture
def now(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(clock_module.time, "monotonic", lambda: now[0])
    return now


def test_evaluations_are_no_steps_but_take_time(now):
    """4 of 10 steps of 2 s, and 3 s of evaluation after every second: 6 steps and 3 evaluations to come, 12 + 9 = 21 s."""
    clock = Clock(10)
    assert clock.left is None
    for step in range(1, 5):
        now[0] += 2
        clock.advance(step)
        if step % 2 == 0:
            clock.set_aside("evaluation")
            now[0] += 3
            clock.go_on("eval")
    assert clock.left == pytest.approx(21)
    now[0] += 1
    assert clock.left == pytest.approx(20), "within a step it goes down"
    now[0] += 60
    assert clock.left == pytest.approx(19), "and a step that takes longer than others is not made up for by those to come"
    clock.set_aside("saving")
    now[0] += 7
    assert clock.left == pytest.approx(19)
    clock.go_on("saving")
    clock.advance(5)
    assert clock.left == pytest.approx(5 * (4 * 2 + 61) / 5 + 9 + 2 * 7), "5 steps, evaluations at 6, 8, 10, checkpoints at 8 and 10"


def test_what_was_before_the_first_step_does_not_come_again(now):
    clock = Clock(4)
    clock.set_aside("evaluation")
    now[0] += 100
    clock.go_on("eval")
    now[0] += 2
    clock.advance(1)
    assert clock.left == pytest.approx(6)


def test_the_first_steps_are_forgotten(now):
    """One step of 1,000 s and then so many of 1 s that it is out of the window."""
    clock = Clock(1000)
    now[0] += 1000
    clock.advance(1)
    for step in range(2, WINDOW + 1):
        now[0] += 1
        clock.advance(step)
    assert clock.left == pytest.approx(950 * (1000 + 49) / 50)
    now[0] += 1
    clock.advance(WINDOW + 1)
    assert clock.left == pytest.approx(949)


def test_phases_add_up(now):
    clock = Clock(2)
    for phase, seconds in (("sampling", 5), ("training", 2), ("sampling", 1)):
        clock.enter(phase)
        now[0] += seconds
    assert clock.in_phase == 1
    clock.set_aside("saving")
    now[0] += 4
    clock.go_on("saving")
    clock.go_on("saving")
    assert clock.phase == "sampling"
    clock.enter("")
    assert clock.spent == {"training": 2, "sampling": 6, "saving": 4}
    assert sum(clock.spent.values()) == clock.taken == 12


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00"), (59.6, "1:00"), (252, "4:12"), (3699, "1:01:39"), (172_799, "47:59:59"), (172_800, "2 d 0 h"), (273_600, "3 d 4 h")],
)
def test_how_times_are_said(seconds, said):
    assert words(seconds) == said


def test_a_curve():
    """Eight levels between the least and the most; the last 16 values; a gap for what is not finite."""
    assert spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert spark([0.0, float("nan"), 7.0, float("inf")]) == "▁ █ "
    assert spark([5.0, 5.0]) == "▁▁"
    assert spark([]) == spark([1.0]) == spark([float("nan")] * 3) == ""
    assert spark([100.0, *range(16)]) == spark(list(range(16)))


def test_parts_are_not_cut():
    assert wrapped(["loss 1.2", "lr 1e-5", "grad 0.1"], 17) == ["loss 1.2  lr 1e-5", "grad 0.1"]
    assert wrapped(["loss 1.2", "lr 1e-5", "grad 0.1"], 16, 1) == ["loss 1.2"]
    assert wrapped([], 10) == []
