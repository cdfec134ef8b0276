"""The end of a pool: of a worker, of the process that starts workers, of the trainer; nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from burnish.rewards import pool as pool_module
from burnish.rewards.samples import Failure, RewardError
from tests.rewards.pools import DEADLINE, alive, by_length, gone, looping, made, pids_of, read, samples, score


def test_children_that_left_the_group_go_with_a_worker(tmp_path):
    path, stays = pids_of(tmp_path, looping)
    with made(stays, timeout=0.5) as pool:
        assert pool.submit(samples("a"), 0).result(DEADLINE).rewards == [[Failure("took more than 0.5 s")]]
        assert all(map(gone, read(path)))
        assert alive(pool.zygote_pid)


def test_closing_ends_everything_and_tells_who_waits(tmp_path):
    path, stays = pids_of(tmp_path, looping)
    with made(stays, timeout=100.0) as pool:
        future = pool.submit(samples("a"), 0)
        pids = read(path)
    with pytest.raises(RewardError, match=r"^The pool of rewards is closed\.$"):
        future.result(0)
    assert all(map(gone, [*pids, pool.zygote_pid]))
    with pytest.raises(RewardError, match="closed"):
        pool.submit(samples("a"), 0)


def test_a_killed_zygote_is_said_to_all_who_wait(tmp_path):
    path, stays = pids_of(tmp_path, looping)
    with made(stays, timeout=100.0) as pool:
        future = pool.submit(samples("a"), 0)
        worker, _, inside = read(path)
        os.kill(pool.zygote_pid, signal.SIGKILL)
        with pytest.raises(RewardError, match=rf"^The process that runs the rewards \(process {pool.zygote_pid}\) has ended or does not"):
            future.result(DEADLINE)
        assert gone(worker)
        assert gone(inside)
        with pytest.raises(RewardError, match="has ended or does not answer"):
            pool.submit(samples("a"), 0)
    os.kill(read(path)[1], signal.SIGKILL)  # which had left, and whose new parent is none of ours


def test_a_zygote_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(pool_module, "SILENT_S", 0.5)
    monkeypatch.setattr("burnish.rewards.zygote.ALIVE_S", 0.1)
    with made(by_length) as pool:
        time.sleep(0.7)  # it is heard from though nothing is asked
        assert pool.submit(samples("a"), 0).result(DEADLINE).rewards == [[1.0]]
        os.kill(pool.zygote_pid, signal.SIGSTOP)
        future = pool.submit(samples("a"), 0)
        with pytest.raises(RewardError, match="has ended or does not answer"):
            future.result(DEADLINE)
        assert gone(pool.zygote_pid)


SCRIPT = """
import os, sys, time
import tests.rewards.pools as t
from pathlib import Path
path, stays = t.pids_of(Path(sys.argv[1]), t.looping)
pool = t.made(stays, timeout=100.0)
pool.submit(t.samples("a"), 0)
print(pool.zygote_pid, *t.read(path), flush=True)
print(os.getpgid(pool.zygote_pid) != os.getpgid(0), flush=True)
time.sleep(100)
"""


def test_nothing_survives_a_trainer_that_is_killed(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path], stdout=subprocess.PIPE, text=True, env=environment)
    pids = list(map(int, process.stdout.readline().split()))
    assert process.stdout.readline() == "True\n"  # a terminal's Ctrl-C does not reach the zygote
    assert len(pids) == 4
    assert all(map(alive, pids))
    process.kill()
    process.wait()
    assert all(map(gone, pids))
    process.stdout.close()


def test_workers_go_with_trainer_and_zygote_at_once(tmp_path):
    """The zygote sees nothing of the trainer's end, and nobody of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path], stdout=subprocess.PIPE, text=True, env=environment)
    zygote, worker, *children = map(int, process.stdout.readline().split())
    os.kill(zygote, signal.SIGSTOP)
    process.kill()
    process.wait()
    assert alive(worker)
    os.kill(zygote, signal.SIGKILL)
    assert gone(worker)
    process.stdout.close()
    for child in children:  # nobody is left to end these
        os.kill(child, signal.SIGKILL)


def test_workers_do_not_hold_what_the_trainer_has_open():
    """A pipe whose end the trainer closes is at its end, though the zygote was forked while it was open."""
    read_end, write_end = os.pipe()
    with made(by_length) as pool:
        assert pool.submit(samples("a"), 0).result(DEADLINE).rewards == [[1.0]]
        os.close(write_end)
        assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_a_worker_has_one_thread_and_its_parents_signals_are_not_its_own():
    import torch

    def reward(sample):
        assert {signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT)} == {signal.SIG_DFL}
        assert signal.set_wakeup_fd(-1) == -1
        assert re.search(r"Threads:\s+1\n", Path("/proc/self/status").read_text())
        return torch.get_num_threads()

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert score(reward, timeout=10.0).rewards == [[1.0], [1.0]]
    finally:
        signal.signal(signal.SIGTERM, before)
