"""Faults at any moment: the same command, given again, ends with the same bits and the same lines. bench/torture.py is the long form."""

from random import Random

import pytest

from tests.torture.faults import (
    Trial,
    damaged_cache,
    damaged_checkpoint,
    damaged_metrics,
    kills,
    no_room,
    sigterm,
    twice,
)
from tests.torture.process import ANY
from tests.torture.runs import SUPERVISOR, server
from tests.torture.ways import subject_of, table, totals, ways


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """Name of a way of training → a run of it, and the means to torture others."""
    folder, context, found = tmp_path_factory.mktemp("torture"), server(), {}
    every = ways(folder)

    def subject(name):
        if name not in found:
            found[name] = subject_of(context, every[name], folder / name.replace(" ", "-"))
        return found[name]

    return subject


def test_one_process_killed_in_every_phase(subject):
    alone = subject("all weights")
    phases = alone.phases()
    trials = list(kills(alone, Random(3), [(phase, 0) for phase in phases]))
    assert {trial.phase for trial in trials} == set(phases)
    assert len(phases) == 11
    assert sum(trial.resumed for trial in trials) >= 5
    assert sum(not trial.resumed for trial in trials) >= 2  # before the first checkpoint


def test_killed_while_log_probs_of_a_reference_are_computed_and_while_they_are_used(subject):
    alone = subject("a reference on disk")
    trials = list(kills(alone, Random(5), [("reference", 0), ("reference", 0), ("train", 0), (ANY, 0)]))
    assert {trial.phase for trial in trials} >= {"reference", "train"}
    follows = subject("a reference that follows")
    assert list(kills(follows, Random(6), [("train", 0), ("save", 0)]))


def test_killed_while_completions_are_sampled_and_scored_and_learnt_from(subject):
    """Every completion of the run is in its samples, once, byte for byte; and the steps yet to come of a sampling are not lost."""
    phases = ("sample", "score", "write samples", "train", "save")
    trials = list(kills(subject("rollouts"), Random(4), [(phase, 0) for phase in phases]))
    assert {trial.phase for trial in trials} >= set(phases)
    assert sum(trial.resumed for trial in trials) >= 2


def test_killed_while_a_checkpoint_is_written_in_the_background(subject):
    trials = list(kills(subject("in the background"), Random(0), [("save", 0), ("rotate", 0)]))
    assert {trial.phase for trial in trials} == {"save, in the background", "rotate, in the background"}


def test_one_of_two_processes_killed_and_their_supervisor(subject):
    trials = list(kills(subject("two shards"), Random(1), [("save", 1), ("train", 0), (ANY, SUPERVISOR)]))
    assert {trial.fault for trial in trials} == {
        "kill -9, rank 0 of 2",
        "kill -9, rank 1 of 2",
        "kill -9, supervisor of 2 ranks",
    }


def test_a_clock_that_goes_backwards(subject):
    trials = list(kills(subject("all weights"), Random(2), [("publish", 0)], clock=True))
    assert [trial.fault for trial in trials] == ["kill -9, the clock goes back"]


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        (lambda one, draw: sigterm(one, draw, "train"), False),
        (lambda one, draw: no_room(one, draw, "disk full", "save"), True),
        (lambda one, draw: no_room(one, draw, "read-only", "publish"), True),
        (lambda one, draw: damaged_checkpoint(one, draw, "a bit flipped", "weights"), False),
        (lambda one, draw: damaged_cache(one, draw, "a bit flipped", "tokens"), False),
        (lambda one, draw: damaged_metrics(one, draw, "a bit flipped"), True),
        (lambda one, draw: twice(one, draw, "export"), True),
    ],
    ids=["SIGTERM", "disk full", "read-only", "checkpoint", "cache", "metrics", "two runs"],
)
def test_other_faults(subject, fault, refused):
    (trial,) = fault(subject("all weights"), Random(0))
    assert trial.refused == refused


def test_the_table():
    kill = Trial(fault="kill -9", phase="save", ranks=1, resumed=True)
    wrong = Trial(fault="SIGTERM", phase="save", ranks=1, wrong="a line is missing")
    assert list(table([wrong, kill, kill], ["fault", "phase"])) == [
        "| fault | phase | moments | refused in a sentence | resumed | begun anew | lost or wrong |",
        "|---|---|--:|--:|--:|--:|--:|",
        "| kill -9 | save | 2 | 0 | 2 | 0 | 0 |",
        "| SIGTERM | save | 1 | 0 | 0 | 0 | 1 |",
    ]
    assert totals([wrong, kill, kill]) == "2 kills, 1 other faults; lost or wrong: 1"
