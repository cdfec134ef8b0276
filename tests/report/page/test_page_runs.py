"""What a run's folder says of it: its method, how it went, how long it took; and folders that are no run's."""

import json
import os
import socket

import pytest
from tests.pages import event, jsonl, make_run

from burnish.report.page.runs import PageError, check_run, head_of, names_of


def head_with(tmp_path, *events):
    jsonl(tmp_path / "events.jsonl", events)
    return head_of(tmp_path)


def test_a_run_that_is_finished(tmp_path):
    head = head_of(make_run(tmp_path / "one"))
    assert (head["method"], head["model"], head["status"]["state"]) == ("grpo", "none/such", "finished")
    assert head["seconds"] == 120.0, "from start, at minute 0, to end, at minute 2"
    assert head["config"]["learning_rate"] == 1e-5
    assert head["defaults"]["learning_rate"] == 1e-6
    assert head["data"]["train"]["prompts"] == 3
    assert head["missing"] == []


def test_a_method_is_known_by_its_options(tmp_path):
    """Of `reward_clip_range` and `kl_in_reward` one is RLOO's alone, and one GRPO's."""
    for option, method in (("reward_clip_range: null", "rloo"), ("kl_in_reward: false", "grpo"), ("ld_alpha: null", "dpo")):
        (tmp_path / "resolved.yaml").write_text(f"learning_rate: 0.1\n{option}\n")
        assert head_of(tmp_path)["method"] == method


def test_ways_in_which_a_run_ends(tmp_path):
    start = event(1, 0, "start")
    assert head_with(tmp_path, start, event(2, 1, "end", 9))["status"] == {"state": "finished", "said": "All 9 steps are done."}
    assert (
        head_with(tmp_path, start, event(2, 1, "signal", 5, signal="SIGTERM"))["status"]["said"]
        == "It was stopped by SIGTERM after step 5."
    )
    assert head_with(tmp_path, start, event(2, 1, "failure", why="ValueError: no"))["status"] == {
        "state": "failed",
        "said": "ValueError: no",
    }
    assert head_with(tmp_path, event(1, 0, "refusal", why="another run"))["status"] == {"state": "refused", "said": "another run"}
    assert head_with(tmp_path)["status"]["state"] == "unknown"


def test_a_run_that_ended_without_a_word_was_killed(tmp_path):
    """Of another machine it is known by its files, which are old; of this one by its process, which is gone."""
    jsonl(tmp_path / "events.jsonl", [event(1, 0, "start")])
    os.utime(tmp_path / "events.jsonl", (0, 0))
    assert head_of(tmp_path)["status"]["state"] == "killed"
    gone = next(pid for pid in range(2**22 - 1, 1, -1) if not os.path.exists(f"/proc/{pid}"))
    assert head_with(tmp_path, event(1, 0, "start", pid=gone) | {"host": socket.gethostname()})["status"]["state"] == "killed"


def test_one_that_was_refused_beside_it_changes_nothing(tmp_path):
    head = head_with(
        tmp_path, event(1, 0, "start"), event(2, 1, "start", pid=2), event(3, 1, "refusal", pid=2, why="held"), event(4, 3, "end", 4)
    )
    assert (head["status"]["state"], head["seconds"]) == ("finished", 180.0)


def test_time_is_over_all_starts_since_it_was_begun_anew(tmp_path):
    """An earlier run of 50 minutes, overwritten; then 2 minutes, killed at a save after 1, and 3 minutes from the checkpoint on."""
    head = head_with(
        tmp_path,
        event(1, 0, "start"),
        event(2, 50, "end"),
        event(3, 60, "start", pid=2),
        event(4, 61, "save", 2, pid=2),
        event(5, 70, "start", pid=3),
        event(6, 70, "resume", 2, pid=3, checkpoint="checkpoint-2"),
        event(7, 73, "end", 4, pid=3),
    )
    assert head["seconds"] == 60.0 + 180.0
    assert [one["number"] for one in head["events"]] == [3, 4, 5, 6, 7]


def test_what_json_has_no_word_for_is_text(tmp_path):
    """A limit without end among the keywords of a reward, and an option whose name is a number."""
    (tmp_path / "resolved.yaml").write_text("reward_kwargs: {right: {limit: .inf, 3: 1.0}}\n")
    (tmp_path / "memory.jsonl").write_text('{"phase": "training", "bytes": 1, "time": NaN}\n')
    head = head_of(tmp_path)
    assert head["config"] == {"reward_kwargs": {"right": {"limit": "inf", "3": 1.0}}}
    json.dumps(head, allow_nan=False)


def test_torn_and_damaged_files_are_said(tmp_path):
    (tmp_path / "resolved.yaml").write_text("a: [")
    (tmp_path / "data.json").write_text("{")
    (tmp_path / "environment.json").write_text("[1]")
    (tmp_path / "events.jsonl").write_text(json.dumps(event(1, 0, "start")) + '\n{"number": 2, "ev')
    head = head_of(tmp_path)
    assert len(head["events"]) == 1
    assert (head["data"], head["environment"], head["config"]) == ({}, {}, {})
    assert head["missing"][0].startswith("Its options cannot be read:")


def test_no_run(tmp_path):
    with pytest.raises(PageError, match="no such folder"):
        check_run(tmp_path / "none")
    with pytest.raises(PageError, match=r"holds none of metrics\.jsonl, events\.jsonl"):
        check_run(tmp_path)
    (tmp_path / "samples").mkdir()
    check_run(tmp_path)


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert names_of(folders) == ["a/run", "b/run"]
    assert names_of(folders[:1]) == ["run"]
