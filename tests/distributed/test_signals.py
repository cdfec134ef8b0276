"""SIGTERM and SIGINT: save and leave, on all ranks after the same step; resumed, the run is the same as if nothing had happened."""

import os
import signal
import sys
import time

import pytest

from burnish.config.processes import processes
from burnish.distributed.signals import Signals
from burnish.report.events import read_events
from tests.distributed.processes import make_task, sft, started
from tests.torture.runs import lines, newest

STEPS = 200


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("task"))


def burnish(task, run, *more, **options):
    words = sft(task, run, *more, max_steps=STEPS, test_split_size=8, eval_strategy="steps", eval_steps=7, **options)
    return started([sys.executable, "-m", "burnish", *words], run.with_suffix(".log"), BURNISH_CACHE=str(task / "cache"))


def check_same(run, whole):
    assert lines(run) == lines(whole)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("ranks", "number", "status"), [(1, signal.SIGTERM, 143), (2, signal.SIGINT, 130)])
def test_stopped_and_started_again_is_never_stopped(ranks, number, status, task, tmp_path):
    run, whole, devices = tmp_path / "run", tmp_path / "whole", ("--devices", str(ranks))
    with burnish(task, whole, *devices) as process:
        assert process.end().status == 0
    with burnish(task, run, *devices) as process:
        process.wait_for(run / "metrics.jsonl")
        process.process.send_signal(number)
        ended = process.end()
    at = newest(run)
    assert 0 < at < STEPS
    assert ended.status == status
    assert ended.output.count(f"{number.name}: leaving after this step; a second one leaves at once") == 1
    assert f"Stopped by {number.name} after step {at} of {STEPS}; the last good checkpoint is {run}/checkpoint-{at}." in ended.last
    assert "Traceback" not in ended.output
    with burnish(task, run, *devices) as process:
        again = process.end()
    assert again.status == 0, again.output
    assert f"Continuing from {run}/checkpoint-{at}, step {at} of {STEPS}." in again.output
    check_same(run, whole)
    told = [(one["event"], one["step"]) for one in read_events(run / "events.jsonl")]
    assert told == [("start", 0), ("save", at), ("signal", at), ("start", 0), ("resume", at), ("save", STEPS), ("end", STEPS)]


def test_where_nothing_is_saved_it_just_leaves(task, tmp_path):
    run = tmp_path / "run"
    with burnish(task, run, "--save_strategy", "no") as process:
        process.wait_for(run / "metrics.jsonl")
        process.process.send_signal(signal.SIGTERM)
        ended = process.end()
    assert ended.status == 143
    assert "no checkpoint was written before." in ended.last
    assert newest(run) == 0


def test_a_second_one_leaves_at_once(tmp_path):
    echo = 4.0  # the two of the same signal may be a second apart where the machine is busy
    script = (
        f"import pathlib, time\nfrom burnish.distributed import signals\nsignals.ECHO = {echo}\n"
        f"with signals.Signals():\n    pathlib.Path({str(tmp_path / 'ready')!r}).write_text('it is')\n    while True: time.sleep(0.1)\n"
    )
    with started([sys.executable, "-c", script], tmp_path / "log") as process:
        process.wait_for(tmp_path / "ready")
        process.process.send_signal(signal.SIGTERM)
        time.sleep(0.25)
        process.process.send_signal(signal.SIGTERM)  # the same, told twice
        time.sleep(echo)
        assert process.process.poll() is None
        process.process.send_signal(signal.SIGTERM)
        assert process.end().status == -signal.SIGTERM


def test_ranks_agree_on_the_signal_that_any_of_them_heard():
    one, other = Signals(), Signals()
    with one:
        os.kill(os.getpid(), signal.SIGINT)
        assert one.heard == signal.SIGINT
    assert (one.counts, other.counts) == ({"signal 2": (0.0, 1.0)}, {})
    for signals in (one, other):
        signals.agree({"nll": (0.0, 3.0), **one.counts})
        assert signals.stop == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signals.leave(lambda text: None, "here")


def test_handlers_are_those_of_before_afterwards_and_what_is_ignored_stays_ignored():
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.heard is None
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert processes().world_size == 1
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_signal_nobody_leaves():
    said = []
    with Signals() as signals:
        signals.agree({})
        signals.leave(said.append, "here")
    assert said == []
    signals.stop = signal.SIGTERM
    with pytest.raises(SystemExit) as stop:
        signals.leave(said.append, "after step 3")
    assert (stop.value.code, said) == (143, ["Stopped by SIGTERM after step 3."])
