"""The pool: reward functions run in processes of their own, which can be killed, beside the training.

    with RewardPool([reward_func(f)], workers=4, timeout=60.0, memory_mib=4096) as pool:
        future = pool.submit(samples, step)          # as soon as a prompt's completions are there
        future.result().rewards                      # [sample][function]: a number, None, or a Failure

Make it before the model is loaded: it forks (`zygote.py`). A function that takes one completion is called for each, and a deadline and a
failure are of that one; of another they are of all the completions of a call. A deadline counts from when a call begins, not from when it
is asked for. Nothing waits for ever: calls have their deadline, and the zygote is heard from every few seconds, or given up.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import socket
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any

from burnish.rewards import frames
from burnish.rewards.contract import RewardFunc
from burnish.rewards.samples import Failure, Reward, RewardError, Sample
from burnish.rewards.zygote import NUMBER, TAIL, Zygote, become_zygote

SILENT_S = 60.0
"""After so long without a word from the zygote it is given up. It says something every two seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRewards:
    """What was submitted together, scored."""

    rewards: list[list[Reward]]
    """[sample][function]."""
    extras: dict[str, list[Any]]
    """Columns that functions logged, each with an entry for every sample; None where a function logged it for others only."""
    metrics: dict[str, list[float]]
    """Numbers that functions logged, each as often as it was logged."""
    seconds: list[float]
    """Of each function: how long its calls took in all, where they came to an end."""


@dataclass(slots=True, kw_only=True)
class _Group:
    """A submission under way."""

    future: Future[GroupRewards]
    samples: int
    rewards: list[list[Reward]]
    seconds: list[float]
    calls: int
    """How many have no answer yet."""
    extras: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, function: int, members: range, answer: dict[str, Any], printed: str) -> None:
        self.seconds[function] += answer.get("seconds", 0.0)
        whole = answer.get("failure")
        for i, member in enumerate(members):
            self.rewards[member][function] = _reward(whole or answer["rewards"][i], printed)
        for column, values in answer.get("extras", {}).items():
            cells = self.extras.setdefault(column, [None] * self.samples)
            cells[members.start : members.stop] = values
        for name, numbers in answer.get("metrics", {}).items():
            self.metrics[name] += numbers
        self.calls -= 1
        if not self.calls:
            self.settle()

    def settle(self) -> None:
        done = GroupRewards(rewards=self.rewards, extras=self.extras, metrics=dict(self.metrics), seconds=self.seconds)
        self.future.set_result(done)


def _take(group: _Group, function: int, members: range, answer: bytes, printed: str) -> None:
    try:
        group.take(function, members, json.loads(answer), printed)
    except (ValueError, TypeError, LookupError, AttributeError):  # a function can write to its worker's channel itself
        group.take(function, members, {"failure": ["gave an answer that cannot be read", ""]}, printed)


def _reward(one: Any, printed: str) -> Reward:
    if one is None:
        return None
    if not isinstance(one, list):
        return float(one)
    reason, detail = map(str, one)
    return Failure(reason, "\n".join(filter(None, (detail, printed and f"It printed last:\n{printed}"))))


class RewardPool:
    """`funcs` in at most `workers` processes at a time, `timeout` seconds for a call, `memory_mib` more memory than a fresh process has.

    Raises RewardError where processes cannot be forked.
    """

    def __init__(self, funcs: Sequence[RewardFunc], *, workers: int, timeout: float, memory_mib: int | None) -> None:
        if sys.platform != "linux":
            raise RewardError(
                f"Rewards run in processes that are forked and watched as Linux does it, and this is {sys.platform}; use Linux."
            )
        self.funcs = tuple(funcs)
        self._lock, self._sending = Lock(), Lock()
        self._pending: dict[int, tuple[_Group, int, range]] = {}
        self._numbers = itertools.count(1)
        self._broken: str | None = None
        self._groups: list[int] = []
        self._channel, theirs = socket.socketpair()
        zygote = Zygote(theirs, self.funcs, workers=workers, timeout=timeout, memory_mib=memory_mib)
        trainer_pid = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the fork uses none of theirs
            self.zygote_pid = os.fork()
        if self.zygote_pid == 0:
            self._channel.close()
            become_zygote(zygote, trainer_pid)
        zygote.selector.close()
        theirs.close()
        self._channel.settimeout(SILENT_S)
        self._reader = Thread(target=self._read, name="rewards", daemon=True)
        self._reader.start()

    def submit(self, samples: Sequence[Sample], step: int) -> Future[GroupRewards]:
        """The completions of a prompt, to be scored. The future has a result as soon as they are, or a RewardError if the zygote dies.

        Raises RewardError where it has died before, the pool is closed, or a row cannot be sent to another process.
        """
        count, future = len(samples), Future[GroupRewards]()
        future.set_running_or_notify_cancel()
        parts = [
            (i, range(k, k + 1) if func.of == "sample" else range(count))
            for i, func in enumerate(self.funcs)
            for k in (range(count) if func.of == "sample" else range(min(count, 1)))
        ]
        try:
            calls = [pickle.dumps((i, [samples[k] for k in members], step), pickle.HIGHEST_PROTOCOL) for i, members in parts]
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise RewardError(f"A row cannot be sent to the rewards' processes ({error}); leave out the column.") from error
        rewards: list[list[Reward]] = [[None] * len(self.funcs) for _ in samples]
        group = _Group(future=future, samples=count, rewards=rewards, seconds=[0.0] * len(self.funcs), calls=len(parts))
        if not parts:
            group.settle()
        with self._lock:
            if self._broken is not None:
                raise RewardError(self._broken)
            numbers = [next(self._numbers) for _ in parts]
            self._pending |= {number: (group, i, members) for number, (i, members) in zip(numbers, parts, strict=True)}
        try:
            with self._sending:
                for number, call in zip(numbers, calls, strict=True):
                    frames.send(self._channel, NUMBER.pack(number) + call)
        except OSError:
            self._give_up()
        return future

    def _read(self) -> None:
        """The thread that takes the answers."""
        try:
            while True:
                message = frames.receive(self._channel)
                (number,) = NUMBER.unpack_from(message)
                if number == 0:
                    self._groups = json.loads(message[NUMBER.size :])
                    continue
                (length,) = TAIL.unpack_from(message, NUMBER.size)
                begin = NUMBER.size + TAIL.size
                printed = message[begin : begin + length].decode(errors="replace")
                with self._lock:
                    asked = self._pending.pop(number, None)
                if asked is not None:
                    _take(*asked, message[begin + length :], printed)
        except (EOFError, OSError):
            self._give_up()

    def _give_up(self) -> None:
        """Ends what is left of the zygote and says so to all who wait."""
        with suppress(ProcessLookupError):
            os.kill(self.zygote_pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.zygote_pid, 0)
        for pid in self._groups:  # what the workers have started, if the zygote could not end it
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._groups = []
        self._refuse(
            f"The process that runs the rewards (process {self.zygote_pid}) has ended or does not answer; "
            "look in the system's log for who killed it, and start the run again."
        )

    def _refuse(self, why: str) -> None:
        with self._lock:
            self._broken = self._broken or why
            waiting = {id(group): group for group, _, _ in self._pending.values()}
            self._pending.clear()
        for group in waiting.values():
            group.future.set_exception(RewardError(self._broken))

    def close(self) -> None:
        """Ends all its processes. Whoever still waits is told."""
        self._refuse("The pool of rewards is closed.")
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        self._reader.join(SILENT_S)
        self._channel.close()

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
