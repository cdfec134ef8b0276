"""Sums over ranks, and what is said where one of them is not there. Each test is two processes over gloo, without a supervisor."""

import re

import pytest
import torch

from burnish.distributed.launch import Launch, all_sum, barrier, gather
from tests.distributed.processes import run_ranks

BYSTANDER = 83


def test_alone_nothing_is_sent():
    here = Launch()
    assert all_sum({"loss": (1.5, 2.0)}, here) == {"loss": (1.5, 2.0)}
    assert gather("mine", here) == ["mine"]
    barrier(here)


def test_sums_over_ranks_that_know_different_names(tmp_path):
    assert [one.status for one in run_ranks("sums", tmp_path)] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == second
    everything, less, ranks = first
    assert everything == {"loss": (0.1 + 0.2, 2.0), "only 0": (1e300, 0.0), "only 1": (1e300, 0.0)}  # in float64
    assert less == {"loss": (1.0, 2.0)}  # and no name that nobody said
    assert ranks == [0, 1]


def test_a_rank_that_raises_has_the_last_word(tmp_path):
    zero, one = run_ranks("raises", tmp_path)
    assert (zero.status, one.status) == (BYSTANDER, 1)
    assert "ArithmeticError: one and one is three" in one.last
    assert "Traceback" not in zero.output
    assert "in raises" in (tmp_path / "stacks" / "rank-0.txt").read_text()


@pytest.mark.parametrize(("what", "dead"), [("killed", 1), ("first_killed", 0)])
def test_a_rank_that_is_killed_is_missed_by_the_other(what, dead, tmp_path):
    ended = run_ranks(what, tmp_path)
    assert ended[dead].status == -9
    other = ended[1 - dead]
    assert f"Rank {dead} is gone without a word, as a process that is killed (out of memory?) or crashes" in other.last
    assert (tmp_path / "stacks" / f"rank-{1 - dead}.txt").exists()


def test_a_rank_that_sleeps_is_named_when_the_deadline_has_passed(tmp_path):
    zero, one = run_ranks("sleeps", tmp_path)
    assert (zero.status, one.status) == (1, BYSTANDER)
    said = r"Rank 0 waited (\d+) s for the counts of step 3; not there: rank 1 \(last seen at the start (\d+) s ago\)\."
    (waited,) = re.findall(said, zero.last)
    assert all(4 <= int(seconds) < 15 for seconds in waited), zero.last
    assert "in sleeps" in (tmp_path / "stacks" / "rank-1.txt").read_text()


def test_a_rank_that_has_ended_its_program(tmp_path):
    zero, one = run_ranks("leaves", tmp_path)
    assert (zero.status, one.status) == (1, 0)
    assert "Rank 0 waited for the counts of step 3 in vain; not there: rank 1 (its program has ended)." in zero.last


def test_ranks_at_different_places_are_not_added_up(tmp_path):
    """Whichever of them says so first."""
    ended = run_ranks("apart", tmp_path)
    said = "".join(one.output for one in ended)
    assert "is at the counts of step 4, and another" in said or "is at the end of the training, and another" in said
    assert all(one.status for one in ended)


def test_what_all_refuse_is_said_once_and_leaves_no_stacks(tmp_path):
    ended = run_ranks("refused", tmp_path)
    assert [one.status for one in ended] == [1, 1]
    assert sum(one.output.count("ValueError: no such folder") for one in ended) == 1
    assert not (tmp_path / "stacks").exists()


def test_ranks_that_never_meet(tmp_path):
    (zero,) = run_ranks("nobody", tmp_path, count=1, expected=2)
    assert zero.status == 1
    assert "DistributedError: Rank 0 of 2 waited up to 4 s at 127.0.0.1:" in zero.last
    assert "1/2 clients joined" in zero.last
