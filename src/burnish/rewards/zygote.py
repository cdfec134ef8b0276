"""The zygote: a process with one thread that forks workers, gives them calls, counts their time, and ends those that take too long.

It is forked from the trainer before there is a model in it, and holds the reward functions, so that closures need not be sent anywhere. A
worker is a fork of it: one that was killed is replaced in tens of milliseconds, and never has the trainer's threads. A process is not
reaped before its group is killed, so that no id can have passed to another; only when the zygote itself is killed does the trainer do that.

    trainer → zygote    8 bytes, the call's number; the pickled call
    zygote → trainer    8 bytes, the call's number; 4 bytes, a length; so much of what was printed last; the JSON answer (`worker.py`)
                        or with the number 0: the JSON list of process groups, at every change and at least every few seconds

It ends, with all of them, when the trainer closes the channel, or dies.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import selectors
import signal
import socket
import stat
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from burnish.rewards import worker
from burnish.rewards.contract import RewardFunc
from burnish.rewards.frames import Frames

NUMBER = struct.Struct("!Q")
TAIL = struct.Struct("!I")
PRINTED = 2000
"""Bytes of what a worker prints that are kept, the last."""
ALIVE_S = 2.0
"""How often the trainer hears from its zygote, at least."""
DYING_S = 1.0
"""How long a worker that has closed its channel may take to end."""
LINUX = sys.platform == "linux"
"""Elsewhere a worker may outlive, by its current call, a zygote that is killed, and what has left a worker's process group outlives it."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """One worker, as the zygote sees it."""

    pid: int
    frames: Frames
    printed: int
    """The file descriptor from which is read what it prints."""
    tail: bytearray = field(default_factory=bytearray)
    call: int | None = None
    """Number of the call that it is at."""
    deadline: float = 0.0
    leaving: bool = False
    """Killed, or about to end by itself, and not yet reaped."""


class Zygote:
    """`workers` at most at a time; `timeout` seconds for each call, from when a worker is given it."""

    def __init__(
        self, channel: socket.socket, funcs: Sequence[RewardFunc], *, workers: int, timeout: float, memory_mib: int | None
    ) -> None:
        self.funcs, self.most, self.timeout, self.memory_mib = funcs, workers, timeout, memory_mib
        self.trainer = Frames(channel)
        self.calls: deque[tuple[int, bytes]] = deque()
        self.workers: dict[int, Worker] = {}
        self.selector = selectors.DefaultSelector()
        self.told = 0.0
        self.prctl: Callable[..., int] = ctypes.CDLL(None).prctl if LINUX else lambda *_: 0

    def run(self, trainer_pid: int) -> None:
        """Its life; returns when the trainer is gone, or wants no more."""
        self.prctl(PR_SET_CHILD_SUBREAPER, 1)
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.selector.register(read, selectors.EVENT_READ, lambda: self._ended(read))
        self.selector.register(self.trainer.channel, selectors.EVENT_READ, self._asked)
        if LINUX:
            self.selector.register(os.pidfd_open(trainer_pid), selectors.EVENT_READ, self._trainer_died)
        try:
            while os.getppid() == trainer_pid:
                self._tell()
                self._assign()
                self._wait()
        except EOFError:
            pass
        finally:
            self._end_all()

    def _wait(self) -> None:
        now = time.monotonic()
        until = min((one.deadline for one in self.workers.values() if one.call is not None), default=now + ALIVE_S)
        unsent = [one for one in (self.trainer, *(w.frames for w in self.workers.values())) if one.unsent]
        for one in unsent:
            self._watch(one.channel, selectors.EVENT_READ | selectors.EVENT_WRITE)
        ready = self.selector.select(max(0.0, min(until - now, ALIVE_S)))
        for one in unsent:
            self._watch(one.channel, selectors.EVENT_READ)
            one.flush()
        for key, events in ready:
            if events & selectors.EVENT_READ and key.fd in self.selector.get_map():
                key.data()
        now = time.monotonic()
        for late in [one for one in self.workers.values() if one.call is not None and one.deadline <= now]:
            self._read(late)  # an answer may have come meanwhile
            if late.call is not None:
                self._kill(late, "closed the channel of its process" if late.frames.ended else f"took more than {self.timeout:g} s")

    def _watch(self, end: socket.socket, events: int) -> None:
        with suppress(KeyError):  # of an end that is gone
            self.selector.modify(end, events, self.selector.get_key(end).data)

    # The trainer

    def _tell(self, changed: bool = False) -> None:
        now = time.monotonic()
        if changed or (now - self.told >= ALIVE_S and not self.trainer.unsent):
            self.told = now
            self.trainer.send(NUMBER.pack(0) + json.dumps(list(self.workers)).encode())

    def _asked(self) -> None:
        for message in self.trainer.receive():
            (number,) = NUMBER.unpack_from(message)
            self.calls.append((number, message[NUMBER.size :]))
        if self.trainer.ended:
            raise EOFError

    def _trainer_died(self) -> None:
        raise EOFError

    def _answer(self, number: int, answer: bytes, printed: bytes = b"") -> None:
        self.trainer.send(NUMBER.pack(number) + TAIL.pack(len(printed)) + printed + answer)

    # The workers

    def _assign(self) -> None:
        while self.calls:
            able = [one for one in self.workers.values() if not one.leaving]
            free = next((one for one in able if one.call is None), None)
            if free is None and len(able) >= self.most:
                return
            try:
                free = free or self._fork()
            except OSError as error:
                if able:
                    return  # one of these will be free
                number, _ = self.calls.popleft()
                self._answer(number, _failed("no process could be started", str(error)))
                continue
            number, call = self.calls.popleft()
            free.call, free.deadline = number, time.monotonic() + self.timeout
            free.tail.clear()
            free.frames.send(NUMBER.pack(number) + call)

    def _fork(self) -> Worker:
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            for end in (ours.detach(), theirs.detach(), read, write):
                os.close(end)
            raise
        if pid == 0:
            try:
                self._become_worker(theirs, write, zygote)
            finally:
                os._exit(1)
        with suppress(OSError):  # whichever comes first, it or this
            os.setpgid(pid, pid)
        theirs.close()
        os.close(write)
        os.set_blocking(read, False)
        one = Worker(pid=pid, frames=Frames(ours), printed=read)
        self.workers[pid] = one
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._read(one))
        self.selector.register(read, selectors.EVENT_READ, lambda: self._drain(one))
        self._tell(changed=True)
        return one

    def _become_worker(self, channel: socket.socket, printed: int, zygote: int) -> None:
        self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        if os.getppid() != zygote:
            return
        quiet_signals()
        self.selector.close()
        for one in (self.trainer, *(w.frames for w in self.workers.values())):
            one.channel.close()
        for descriptor in (1, 2):
            os.dup2(printed, descriptor)
        os.close(printed)
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            stream = open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            sys.stdout, sys.stderr = (stream, sys.stderr) if name == "stdout" else (sys.stdout, stream)
        worker.serve(channel, self.funcs, self.memory_mib)

    def _read(self, one: Worker) -> None:
        for answer in one.frames.receive():
            if one.call is None or answer[:8] != NUMBER.pack(one.call):  # a function has found the channel
                self._kill(one, "wrote to the channel of its process")
                return
            one.leaving = one.leaving or answer[8:9] != worker.READY
            self._drain(one)
            self._answer(one.call, answer[9:], bytes(one.tail))
            one.call = None
        if one.frames.ended:
            self._unwatch(one.frames.channel)
            one.leaving = True
            one.deadline = time.monotonic() + DYING_S  # it is dead, and `_reap` will say of what, or nearly so
            if one.call is None:
                self._kill(one)

    def _unwatch(self, end: socket.socket | int) -> None:
        with suppress(KeyError):
            self.selector.unregister(end)

    def _drain(self, one: Worker) -> None:
        with suppress(BlockingIOError):
            for _ in range(64):  # and then it is another's turn
                part = os.read(one.printed, 2**16)
                if not part:
                    self._unwatch(one.printed)
                    return
                one.tail = (one.tail + part)[-PRINTED:]

    def _kill(self, one: Worker, why: str | None = None) -> None:
        one.leaving = True
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        if why is not None:
            self._fail(one, why)

    def _fail(self, one: Worker, why: str) -> None:
        if one.call is not None:
            self._drain(one)
            self._answer(one.call, _failed(why), bytes(one.tail))
            one.call = None

    def _ended(self, wake: int) -> None:
        with suppress(BlockingIOError):
            while os.read(wake, 4096):
                pass
        self._reap()

    def _reap(self) -> None:
        """Whatever has ended: workers, and what they have left behind, which comes to this process where the system allows it."""
        with suppress(ChildProcessError):
            while True:
                which = -1
                if LINUX:  # not reaped before its group is killed
                    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if ended is None:
                        return
                    which = ended.si_pid
                    if which in self.workers:
                        self._kill(self.workers[which])
                pid, status = os.waitpid(which, os.WNOHANG)
                if not pid:
                    return
                if pid in self.workers:
                    self._forget(self.workers[pid], os.waitstatus_to_exitcode(status))
                    self._kill_orphans()

    def _kill_orphans(self) -> None:
        for orphan in _children() - set(self.workers):
            with suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)

    def _forget(self, one: Worker, code: int) -> None:
        self._read(one)  # the answer, where it came to that
        names = {known.value: known.name for known in signal.Signals}
        killed = f"was killed by {names.get(-code, f'signal {-code}')}"
        self._fail(one, killed if code < 0 else f"ended its process with status {code}")
        self._unwatch(one.frames.channel)
        self._unwatch(one.printed)
        one.frames.channel.close()
        os.close(one.printed)
        del self.workers[one.pid]
        self._tell(changed=True)

    def _end_all(self) -> None:
        deadline = time.monotonic() + 5.0
        while (self.workers or _children()) and time.monotonic() < deadline:
            for one in self.workers.values():
                self._kill(one)
            self._kill_orphans()
            self._reap()
            select.select([], [], [], 0.002)


def _failed(reason: str, detail: str = "") -> bytes:
    return json.dumps({"failure": [reason, detail]}).encode()


def _children() -> set[int]:
    """Processes whose parent this one is, as far as the system tells."""
    with suppress(OSError):
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()))
    return set()


def quiet_signals() -> None:
    """What the trainer does on a signal is no business of its forks."""
    signal.set_wakeup_fd(-1)
    for one in signal.valid_signals():
        if callable(signal.getsignal(one)) and one not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(one, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_zygote(zygote: Zygote, trainer_pid: int) -> None:
    """What a fresh fork of the trainer does first and last. Never returns."""
    code = 1
    try:
        os.setsid()  # so that Ctrl-C in a terminal goes to the trainer alone, which ends this one
        quiet_signals()
        gc.freeze()  # what the trainer holds is never collected here: not its time, and not its memory's copies
        _let_go(zygote.trainer.channel.fileno())
        zygote.run(trainer_pid)
        code = 0
    except BaseException:  # noqa: BLE001  nobody else would say it
        traceback.print_exc()
    finally:
        os._exit(code)


def _let_go(ours: int) -> None:
    """Sockets and pipes of the trainer, whose other ends wait for it to close them. Their numbers stay taken, since objects know them."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for name in os.listdir("/dev/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in (ours, null):
            with suppress(OSError):
                kind = os.fstat(descriptor).st_mode
                if stat.S_ISSOCK(kind) or stat.S_ISFIFO(kind):
                    os.dup2(null, descriptor, inheritable=False)
