"""The pool: whatever a function does, each completion has a reward or a failure, soon; what is left behind is for `test_pool_end.py`."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import sys
import time

import numpy as np
import pytest

from burnish.rewards.samples import Failure, RewardError
from tests.rewards.pools import DEADLINE, by_length, looping, made, samples, score

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
