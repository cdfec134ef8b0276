"""The pool: whatever a function does, each completion has a reward or a failure, soon; and nothing is left behind."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from burnish.rewards import pool as pool_module
from burnish.rewards.contract import RewardFunc, reward_func
from burnish.rewards.pool import GroupRewards, RewardPool
from burnish.rewards.samples import Failure, RewardError, Sample

DEADLINE = 20.0  # seconds, of what takes one


def samples(*texts: str, **columns) -> list[Sample]:
    return [
        Sample(prompt="p", completion=text, completion_ids=np.arange(len(text)), finish_reason="stop", columns=columns) for text in texts
    ]


def made(*functions, workers: int = 2, timeout: float = 10.0, memory_mib: int | None = None) -> RewardPool:
    funcs = [f if isinstance(f, RewardFunc) else reward_func(f) for f in functions]
    return RewardPool(funcs, workers=workers, timeout=timeout, memory_mib=memory_mib)


def score(*functions, of=("a", "bb"), step: int = 0, **options) -> GroupRewards:
    with made(*functions, **options) as pool:
        return pool.submit(samples(*of), step).result(DEADLINE)


def alive(pid: int) -> bool:
    """Whether it runs: no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def by_length(sample):
    return len(sample.text)


def looping(sample):
    while True:
        pass


# What is given, and what comes back


def test_functions_of_one_completion_and_of_a_group_closures_and_coroutines():
    """Of "a" and "bb": 3·1 and 3·2; 1 and 2; 7 + 0 and 7 + 1."""
    factor = 3

    def scaled(sample):
        return factor * len(sample.text)

    async def counted(completions, trainer_state, **columns):
        await asyncio.sleep(0)
        return [trainer_state.global_step + i for i in range(len(completions))]

    got = score(scaled, lambda completions: [len(one) for one in completions], counted, step=7)
    assert got.rewards == [[3.0, 1.0, 7.0], [6.0, 2.0, 8.0]]
    assert [type(one) for one in got.rewards[0]] == [float] * 3
    assert all(0 < seconds < 0.5 for seconds in got.seconds)


def test_what_functions_log():
    def reward(completions, log_metric, log_extra):
        log_metric("longest", max(map(len, completions)))
        log_extra("length", [len(one) for one in completions])
        log_extra("kind", [int, None])
        return [0.0, 0.0]

    def one(sample, log_extra=None, log_metric=None):
        log_metric("length", len(sample.text))
        if sample.text == "bb":
            log_extra("long", [True])
        return 1.0

    got = score(reward, one)
    assert got.extras == {"length": [1, 2], "kind": ["<class 'int'>", None], "long": [None, True]}
    assert {name: sorted(values) for name, values in got.metrics.items()} == {"longest": [2.0], "length": [1.0, 2.0]}


def test_none_says_nothing_and_a_bad_entry_fails_alone():
    got = score(lambda completions: [None, 1, math.nan, np.float32(math.inf), "1", True, np.int64(3), 10**400], of="abcdefgh")
    (rewards,) = zip(*got.rewards, strict=True)
    reasons = [one.reason if isinstance(one, Failure) else one for one in rewards]
    assert reasons == [None, 1.0, "returned NaN", "returned an infinite number", "returned a str", 1.0, 3.0, "returned a int"]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ([1.0], "returned 1 rewards for 2 completions"),
        (None, "returned a NoneType instead of a list"),
        ({1: 2.0, 2: 3.0}, "returned a dict instead of a list"),
        (0.5, "returned a float instead of a list"),
    ],
)
def test_what_is_no_list_of_rewards_fails_for_all(returned, reason):
    assert score(lambda completions: returned).rewards == [[Failure(reason)], [Failure(reason)]]


# Faults


def test_an_exception_is_said_with_its_line_and_what_was_printed():
    def divided(sample):
        print("about to divide")
        return 1 / (len(sample.text) - 1)

    (first,), (second,) = score(divided).rewards
    assert second == 1.0
    assert first.reason == "raised ZeroDivisionError"
    line = divided.__code__.co_firstlineno + 2
    assert first.detail.startswith(f"ZeroDivisionError: division by zero (line {line} of {__file__})\n")
    assert first.detail.endswith("It printed last:\nabout to divide\n")


def test_a_call_of_a_group_fails_for_the_group():
    def reward(completions):
        return [1 / (len(one) - 1) for one in completions]

    assert [one.reason for (one,) in score(reward).rewards] == ["raised ZeroDivisionError"] * 2


def fork_bomb_of_one(sample):
    if os.fork() == 0:
        time.sleep(100)
    os._exit(0)


def kills_itself(sample):
    os.kill(os.getpid(), signal.SIGKILL)


def closes_its_files(sample):
    os.closerange(0, 65536)
    return 1.0


def writes_nonsense(sample):
    """To the worker's channel, wherever that is."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and os.path.exists(f"/proc/self/fd/{descriptor}") and "socket" in os.readlink(f"/proc/self/fd/{descriptor}"):
            with socket.socket(fileno=os.dup(descriptor)) as channel:
                channel.sendall((5).to_bytes(8, "big") + b"Rnone")
    return 1.0


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (looping, "took more than 0.5 s"),
        (lambda sample: time.sleep(100), "took more than 0.5 s"),
        (lambda sample: signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals)) or looping(sample), "took more than 0.5 s"),
        (lambda sample: os.kill(os.getpid(), signal.SIGSTOP), "took more than 0.5 s"),
        (lambda sample: sys.exit("enough"), "raised SystemExit"),
        (lambda sample: os._exit(3), "ended its process with status 3"),
        (fork_bomb_of_one, "ended its process with status 0"),
        (kills_itself, "was killed by SIGKILL"),
        (closes_its_files, "ended its process with status 0"),
        (lambda sample: os.closerange(0, 65536) or time.sleep(100), "closed the channel of its process"),
        (writes_nonsense, "wrote to the channel of its process"),
        (lambda sample: bytearray(2**30) and 1.0, "used more than 100 MiB"),
        (lambda sample: float(np.ones(2**28).sum()), "used more than 100 MiB"),
        (lambda sample: (lambda f: f(f))(lambda f: f(f)), "raised RecursionError"),
        (lambda sample: input(), "raised EOFError"),
    ],
)
def test_whatever_a_function_does_is_a_failure_and_soon(function, reason):
    """The next completion is none the worse for it."""
    start = time.monotonic()
    timeout = 0.5 if "took" in reason else 10.0
    got = score(lambda sample: function(sample) if sample.text == "a" else 2.0, workers=1, memory_mib=100, timeout=timeout)
    assert (got.rewards[0][0].reason, got.rewards[1][0]) == (reason, 2.0)
    assert time.monotonic() - start < 8


def test_megabytes_that_are_printed_are_read_and_their_end_kept():
    def shouting(sample):
        print("x" * 3_000_000)
        print("y" * 3_000_000, file=sys.stderr)
        os.write(1, b"z" * 3_000_000 + b"the end")
        if sample.text == "a":
            raise KeyError
        return 1.0

    (first,), (second,) = score(shouting, timeout=5.0).rewards
    assert second == 1.0
    assert first.detail.endswith("z" * 1000 + "the end")
    assert len(first.detail) < 5000


def test_a_large_row_and_a_large_answer():
    """Larger than any buffer of a socket."""

    def reward(completions, image, log_extra):
        log_extra("again", image)
        return [float(len(image[0]))] * len(completions)

    with made(reward, timeout=10.0) as pool:
        got = pool.submit(samples("a", "b", image="i" * 5_000_000), 0).result(DEADLINE)
    assert got.rewards == [[5e6], [5e6]]
    assert [len(one) for one in got.extras["again"]] == [5_000_000] * 2


def test_a_deadline_counts_from_the_start_of_a_call():
    """Six calls of 0.3 s by one worker, each in time, though the last one waits for 1.5 s."""
    got = score(lambda sample: time.sleep(0.3) or 1.0, of="abcdef", workers=1, timeout=0.9)
    assert got.rewards == [[1.0]] * 6
    assert got.seconds[0] == pytest.approx(1.8, abs=0.5)


def test_a_function_that_forks_and_returns_twice_answers_once():
    """The second answer, were there one, would come during the next call."""

    def doubled(sample):
        time.sleep(0.15 if os.fork() == 0 else 0.1)
        return len(sample.text)

    assert score(doubled, of=("a", "bb", "ccc"), workers=1).rewards == [[1.0], [2.0], [3.0]]


def test_what_cannot_be_sent_is_said_at_once():
    with (
        made(by_length) as pool,
        pytest.raises(RewardError, match=r"^A row cannot be sent to the rewards' processes \("),
    ):
        pool.submit(samples("a", image=lambda: None), 0)


def test_a_missing_column_is_named():
    def reward(completions, answer):
        return []

    assert score(reward).rewards[0][0].reason == "needs the column 'answer', which the row does not have"


def test_no_samples_and_no_functions():
    assert score(by_length, of=()).rewards == []
    assert score().rewards == [[], []]


# The end


def pids_of(tmp_path, function):
    """Submits a call that writes down its process, and a child that has left its group, and then takes for ever."""
    path = tmp_path / "pids"

    def stays(sample):
        child = subprocess.Popen(["sleep", "100"], start_new_session=True)
        inside = subprocess.Popen(["sleep", "100"])
        path.with_suffix(".new").write_text(f"{os.getpid()} {child.pid} {inside.pid}")
        path.with_suffix(".new").rename(path)
        return function(sample)

    return path, stays


def read(path: Path) -> list[int]:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return list(map(int, path.read_text().split()))


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
import tests.rewards.test_pool as t
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
