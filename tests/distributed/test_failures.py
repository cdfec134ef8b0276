"""One of two ranks is killed, raises, or sleeps for ever: the run ends within seconds, its last lines say why, and stacks are on disk."""

import re
import sys
import time

import pytest

from burnish.report.events import read_events
from tests.distributed.processes import faults, make_task, sft, started

LIMIT = 30  # seconds
DDP_TIMEOUT = 8
"""Seconds, where a rank sleeps; the other faults are noticed long before PyTorch's default of half an hour."""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("task"))


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
LAUNCHERS = {
    "devices": lambda words: [sys.executable, "-m", "burnish", *words, "--devices", "2"],
    "torchrun": lambda words: [*TORCHRUN, "-m", "burnish", *words],
}


def struck(launcher, fault, task, folder, **options):
    """(how it ended, seconds from the fault to the end)."""
    run, told = folder / "run", folder / "told"
    words = sft(task, run, **options)
    with started(LAUNCHERS[launcher](words), folder / "log", BURNISH_CACHE=str(folder / "cache"), **faults(fault, told)) as process:
        process.wait_for(told)
        begun = time.monotonic()
        ended = process.end()
        return ended, time.monotonic() - begun


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_killed(launcher, task, tmp_path):
    ended, seconds = struck(launcher, "killed", task, tmp_path)
    assert seconds < LIMIT
    said = "rank 1 was killed by signal 9 (SIGKILL): out of memory?" if launcher == "devices" else "Signal 9 (SIGKILL)"
    assert said in ended.last
    assert "Rank 1 is gone without a word" in ended.output
    assert ended.status == (137 if launcher == "devices" else 1)
    assert (tmp_path / "run" / "stacks" / "rank-0.txt").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_raising(launcher, task, tmp_path):
    ended, seconds = struck(launcher, "raises", task, tmp_path)
    assert seconds < LIMIT
    assert ended.status == 1
    assert "ArithmeticError: one and one is three" in ended.last
    assert "in strike" in ended.last  # its traceback
    assert ended.output.count("Traceback (most recent call last)") <= (1 if launcher == "devices" else 3)
    stacks = tmp_path / "run" / "stacks"
    assert "one and one is three" in (stacks / "rank-1.txt").read_text()
    assert "optimizer_step" in (stacks / "rank-0.txt").read_text()  # where rank 0 was waiting
    event = read_events(tmp_path / "run" / "events.jsonl")[-1]
    assert (event["event"], event["rank"], event["step"]) == ("failure", 1, 3)
    assert "one and one is three" in event["why"]


@pytest.mark.parametrize(("launcher", "fault"), [("devices", "asleep"), ("torchrun", "asleep"), ("devices", "stopped")])
def test_sleeping(launcher, fault, task, tmp_path):
    """(One that is stopped cannot leave when it is told to, and torchrun gives it 30 seconds to do so.)"""
    ended, seconds = struck(launcher, fault, task, tmp_path, ddp_timeout=DDP_TIMEOUT)
    assert DDP_TIMEOUT - 1 < seconds < LIMIT
    assert ended.status == (2 if launcher == "devices" else 1)
    assert re.search(r"Rank 0 waited \d+ s for the gradients of step 4; not there: rank 1", ended.last)
    stacks = tmp_path / "run" / "stacks"
    assert "optimizer_step" in (stacks / "rank-0.txt").read_text()
    if fault == "asleep":
        assert "in strike" in (stacks / "rank-1.txt").read_text()
    assert read_events(tmp_path / "run" / "events.jsonl")[-1]["event"] == "failure"
