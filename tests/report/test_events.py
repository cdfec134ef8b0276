"""events.jsonl: whole lines, in order, whatever happens to the file; and a run that goes on without it."""

import json
import os
import signal

import pytest

from burnish.distributed.launch import Launch
from burnish.distributed.signals import Signals
from burnish.report import events as module
from burnish.report.events import Events, read_events, record_refusal


@pytest.fixture
def said():
    return []


@pytest.fixture
def events(tmp_path, said):
    return Events(tmp_path / "run", Launch(), lambda: 7, said.append)


def names(events):
    return [one["event"] for one in read_events(events.path)]


def test_a_run_from_start_to_end(events):
    with events.of_run(Signals()):
        events.write("resume", checkpoint="checkpoint-7")
        (events.path.parent / "checkpoint-7").mkdir()
        with events.saving():
            (events.path.parent / "checkpoint-7" / "model").write_bytes(b"12345")
    start, resume, save, end = read_events(events.path)
    assert [one["number"] for one in (start, resume, save, end)] == [1, 2, 3, 4]
    assert {one["step"] for one in (start, resume, save, end)} == {7}
    assert {one["pid"] for one in (start, resume, save, end)} == {os.getpid()}
    assert start["world_size"] == 1
    assert set(start["versions"]) == {"burnish", "torch", "transformers", "datasets", "peft"}
    assert resume["checkpoint"] == "checkpoint-7"
    assert (save["checkpoint"], save["bytes"]) == ("checkpoint-7", 5)
    assert end["event"] == "end"


def test_a_failure_and_a_refusal(events):
    with pytest.raises(ArithmeticError), events.of_run(Signals()):
        raise ArithmeticError("one and one is three")
    with pytest.raises(RuntimeError), events.of_run(Signals()), events.refusals():
        raise RuntimeError("another process trains into it")
    assert names(events) == ["start", "failure", "start", "refusal"]
    _, failure, _, refusal = read_events(events.path)
    assert (failure["why"], failure["rank"]) == ("ArithmeticError: one and one is three", 0)
    assert refusal["why"] == "another process trains into it"


def test_a_signal(events):
    signals = Signals()
    signals.stop = signal.SIGTERM
    with pytest.raises(SystemExit), events.of_run(signals):
        raise SystemExit(143)
    assert read_events(events.path)[-1]["signal"] == "SIGTERM"
    assert names(events) == ["start", "signal"]


def test_other_ranks_write_nothing(tmp_path, said):
    events = Events(tmp_path, Launch(rank=1, world_size=2), lambda: 0, said.append)
    events.write("start")
    assert not events.path.exists()


def test_nothing_is_cut_and_a_torn_line_stays_alone(events):
    events.write("start")
    with events.path.open("ab") as file:
        file.write(b'{"number": 2, "ev')
    events.write("resume")
    assert [(one["number"], one["event"]) for one in read_events(events.path)] == [(1, "start"), (2, "resume")]
    assert events.path.read_bytes().split(b"\n")[1] == b'{"number": 2, "ev'


def test_a_path_that_is_no_unicode_text(events):
    events.write("start", command=["burnish", os.fsdecode(b"caf\xe9")])
    assert read_events(events.path)[0]["command"] == ["burnish", "caf\udce9"]


def test_a_clock_that_goes_backwards_leaves_the_order(events, monkeypatch):
    times = iter(["2030-01-01T00:00:00.000+00:00", "2001-01-01T00:00:00.000+00:00"])

    class Clock:
        @staticmethod
        def now(zone):
            return type("Moment", (), {"isoformat": lambda self, timespec: next(times)})()

    monkeypatch.setattr(module, "datetime", Clock)
    events.write("start")
    events.write("end")
    assert [(one["number"], one["time"][:4]) for one in read_events(events.path)] == [(1, "2030"), (2, "2001")]


def test_numbers_go_on_after_lines_longer_than_what_is_read_back(events):
    events.write("failure", why="x" * (2 * module.TAIL))
    events.write("start")
    assert [(one["number"], one["event"]) for one in read_events(events.path)] == [(1, "failure"), (2, "start")]


def test_a_full_disk_is_said_once_and_the_run_goes_on(events, said, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "append", full)
    events.write("start")
    events.write("end")
    assert said == [f"{events.path} cannot be written (No space left on device); the run goes on, and its events are not recorded."]


def test_a_refusal_before_anything_is_begun(tmp_path):
    record_refusal(tmp_path, "belongs to another run")
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line)["why"] == "belongs to another run"
    record_refusal(tmp_path / "missing", "nothing to write into")  # and no folder is made for it
    assert not (tmp_path / "missing").exists()
