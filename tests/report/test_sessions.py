"""How a run went, by its events: whose they are, how it ended, what came before it was begun anew, how long it took."""

import os
import socket
from datetime import UTC, datetime, timedelta

import pytest
from tests.pages import BEGUN, event

from burnish.report.sessions import sessions, since_anew, status, total_seconds

HERE = {"host": socket.gethostname()}


def of(*kinds, **facts):
    return [event(number, number, kind, number, **facts) for number, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ([], "unknown"),
        (["start"], "killed"),
        (["start", "save", "end"], "finished"),
        (["start", "end", "start", "refusal"], "finished"),
        (["start", "end", "refusal"], "finished"),
        (["start", "refusal"], "refused"),
        (["refusal"], "refused"),
        (["failure"], "failed"),
        (["start", "signal"], "stopped"),
        (["start", "failure", "start", "resume"], "killed"),
        (["start", "failure"], "failed"),
    ],
)
def test_how_a_run_ended(tmp_path, kinds, wanted):
    assert status(tmp_path, of(*kinds))["state"] == wanted


def test_the_rank_that_fails_has_another_number_than_the_one_that_starts(tmp_path):
    """Process 1 starts, 2 is refused beside it, 3 is a rank of 1 that fails; 4 goes on."""
    events = [event(1, 0, "start"), event(2, 1, "start", pid=2), event(3, 1, "refusal", pid=2, why="held")]
    events += [event(4, 3, "failure", 7, pid=3, why="ValueError: no")]
    (one,) = sessions(events)
    assert [each["number"] for each in one.events] == [1, 4]
    assert status(tmp_path, events) == {"state": "failed", "said": "ValueError: no"}
    assert total_seconds(tmp_path, events) == 180.0
    events += [event(5, 4, "start", pid=4), event(6, 4, "resume", 5, pid=4), event(7, 5, "end", 9, pid=4)]
    assert [[each["number"] for each in one.events] for one in sessions(events)] == [[1, 4], [5, 6, 7]]
    assert total_seconds(tmp_path, events) == 240.0


def test_in_containers_all_processes_have_one_number(tmp_path):
    """Killed a minute after its start, at a save; then 2 minutes from the checkpoint on. Hours lie between them."""
    events = [event(1, 0, "start"), event(2, 1, "save", 2), event(3, 300, "start"), event(4, 300, "resume", 2), event(5, 302, "end", 4)]
    assert total_seconds(tmp_path, events) == 180.0


def test_one_that_was_killed_was_there_as_long_as_it_wrote(tmp_path):
    """Its last event is a save after a minute, and its last line of metrics of half a minute later."""
    (tmp_path / "metrics.jsonl").touch()
    written = (BEGUN + timedelta(seconds=90)).timestamp()
    os.utime(tmp_path / "metrics.jsonl", (written, written))
    assert total_seconds(tmp_path, [event(1, 0, "start"), event(2, 1, "save", 2)]) == 90.0


def test_another_process_that_has_the_number_by_now_is_not_the_run(tmp_path):
    """This one writes now, and did not write a day before it began; of two starts only the last can go on."""
    now, before = datetime.now(UTC), datetime.now(UTC) - timedelta(days=1)
    start = event(1, 0, "start", pid=os.getpid()) | HERE
    assert status(tmp_path, [start | {"time": now.isoformat()}])["state"] == "running"
    assert status(tmp_path, [start | {"time": before.isoformat()}])["state"] == "killed"
    later = event(2, 0, "start", pid=0) | HERE
    assert status(tmp_path, [start | {"time": now.isoformat()}, later])["state"] == "killed"


def test_what_was_before_a_run_was_begun_anew_is_left_out():
    def left(*kinds):
        return [one["event"] for one in since_anew(of(*kinds))]

    assert left("start", "save", "end", "start", "save") == ["start", "save"]
    assert left("start", "save", "end", "start") == ["start"]
    assert left("start", "save", "end", "start", "signal") == ["start", "signal"], "after step 4"
    assert left("start", "save", "signal", "start", "resume", "save") == ["start", "save", "signal", "start", "resume", "save"]
    assert left("start", "save", "end", "refusal", "start", "refusal") == ["start", "save", "end", "refusal", "start", "refusal"]
    assert left("refusal") == ["refusal"]


def test_a_start_that_came_to_nothing_is_no_beginning():
    """The second was killed before it could go on from a checkpoint of the first, from which the third did; the last failed at step 0."""
    events = [event(1, 0, "start"), event(2, 1, "save", 5), event(3, 2, "start", pid=2), event(4, 3, "start", pid=3)]
    events += [event(5, 3, "resume", 5, pid=3), event(6, 4, "start", pid=4), event(7, 5, "failure", 0, pid=4)]
    for number in (5, 7):
        assert since_anew(events[:number]) == events[:number]
