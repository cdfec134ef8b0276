"""When one process of a run fails, all of them end within seconds, and the last words are about the cause.

Each rank keeps a connection to rank 0 and a thread that listens to it, so that nobody has to be out of a collective to hear
that a rank has failed. The operating system closes the connections of a process that dies, whatever it died of. On bad news
rank 0 listens to everybody for a second (`hub.py`), decides on the cause, and tells all: each writes its stacks, and those that did
not fail themselves leave.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import secrets
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from burnish.config.processes import processes
from burnish.distributed.hub import WITHOUT_A_WORD, Hub, Link, Verdict

BYSTANDER = 83
"""Exit status of a process that left because another had failed."""
SUPERVISOR = "BURNISH_SUPERVISOR"
"""Names the descriptor of a pipe that ends when the process dies that started this one (`burnish --devices`)."""
GREETING = 60
"""Seconds in which all ranks, which have just met in the process group, connect to rank 0."""
PATIENCE = 5.0
"""Seconds that one that failed waits for the verdict. Rank 0 takes one."""
NETWORK = ("gloo/transport", "pair closure", "NCCL error", "NCCL communicator")
"""In the text of what PyTorch raises, as a plain RuntimeError, when another rank is late or gone."""

WATCHES: list[Watch] = []
"""This process's, where there is more than one process."""


class DistributedError(RuntimeError):
    """Another rank did not come, or is gone. One sentence: who waited for what, how long, and who was not there."""


class Watch:
    """This process's connection to the others. Made by `connect`, on every rank."""

    def __init__(self, rank: int, link: Link, hub: Hub | None = None) -> None:
        self.rank = rank
        self.folder: Path | None = None
        """Where stacks are written; None: nowhere."""
        self.on_failure: Callable[[str], object] = lambda sentence: None
        """Told the cause, on the one rank that speaks of it."""
        self.verdict: Verdict | None = None
        self._link, self._hub = link, hub
        self._what, self._number, self._inside, self._since = "its start", 0, False, time.monotonic()
        self._raising, self._decided = False, threading.Event()
        self._listening = threading.Thread(target=self._listen, name="burnish watch", daemon=True)
        self._listening.start()

    # The main thread's part

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """While in here this rank waits for the others. Raises DistributedError where one is late, or gone."""
        begun, number = time.monotonic(), 0
        if main := threading.current_thread() is threading.main_thread():  # a checkpoint in the background is no place of a rank
            number = self._number + 1
            self._what, self._number, self._inside, self._since = what, number, True, begun
        try:
            yield
        except RuntimeError as error:
            if not from_network(error):
                raise
            waited = {"waited_for": what, "seconds": time.monotonic() - begun, "number": number}
            raise self.failed(error, **waited, timed_out="time" in str(error).lower()) from error
        finally:
            if main:
                self._inside, self._since = False, time.monotonic()

    def failed(self, error: BaseException, **waited: Any) -> BaseException:
        """Tells the others, and waits until the cause is known. Later calls change nothing.

        What to raise: `error`, or where this rank `waited` for others, a DistributedError that names the cause.
        """
        if self.verdict is not None and not self._raising:
            time.sleep(2 * PATIENCE)  # the other thread is about to end this process
        first, self._raising = not self._raising, True
        if first:
            self._link.send(kind="failed", error=one_line(error), **{"waited_for": None, **waited})
            self._decided.wait(PATIENCE)
        named = self._in_vain(error, waited["waited_for"]) if waited else error
        if first:
            if self.verdict is None or not self.verdict.together:
                self._write_stacks("".join(traceback.format_exception(error)))
            if self.speaks:
                if not self._launcher_sees_cause():
                    record(named)
                self.on_failure(self.verdict.sentence if self.verdict else one_line(error))
        return named

    def _in_vain(self, error: BaseException, what: str) -> DistributedError:
        """`self.verdict` is None where rank 0 has left."""
        sentence = (
            self.verdict.sentence + self._where() if self.verdict else f"Rank {self.rank} waited for {what} in vain: {one_line(error)}"
        )
        named = DistributedError(sentence)
        named.__cause__ = error
        return named

    def _launcher_sees_cause(self) -> bool:
        """A rank that is gone is on this machine: whoever started both knows what it died of, and should show that."""
        here = processes()
        first = here.rank - here.local_rank
        return self.verdict is not None and any(first <= rank < first + here.local_world_size for rank in self.verdict.gone)

    @property
    def speaks(self) -> bool:
        return self.verdict is None or self.verdict.speaker == self.rank

    def leave(self) -> None:
        """At the end of the program. Its last collective is done; a moment later gloo's threads have dropped the tensors of it, too.

        (A thread that drops one after the interpreter has gone aborts the process: "terminate called without an active exception".)
        """
        self._link.send(kind="left")
        if self._hub is not None:
            self._hub.join(1)
        time.sleep(0.1)

    # The other thread's part

    def _listen(self) -> None:
        ends: list[Any] = [self._link, *([int(os.environ[SUPERVISOR])] if SUPERVISOR in os.environ else [])]
        while True:
            ready, _, _ = select.select(ends, [], [])
            if any(one in ready for one in ends[1:]):
                os._exit(BYSTANDER)
            messages = self._link.read()
            if messages is None:
                speaks = self.rank == 1 or processes().local_rank == 0  # one on each machine, with nobody to choose one of all
                self._end(Verdict(sentence=f"Rank 0 is {WITHOUT_A_WORD}.", speaker=self.rank if speaks else 0, gone=[0]))
                return
            for message in messages:
                kind = message.pop("kind")
                if kind == "ask":
                    seconds = time.monotonic() - self._since
                    self._link.send(kind="doing", what=self._what, number=self._number, inside=self._inside, seconds=seconds)
                elif kind == "verdict":
                    self._end(Verdict(**message))
                    return
                else:
                    return

    def _end(self, verdict: Verdict) -> None:
        self.verdict = verdict
        if self._raising:
            self._decided.set()
            return
        self._write_stacks()
        try:
            if self.speaks:
                print(f"error: {verdict.sentence}{self._where()}", file=sys.stderr)  # noqa: T201
                self.on_failure(verdict.sentence)
        finally:  # even where nobody reads standard error any more
            flushing = threading.Thread(target=flush, daemon=True)
            flushing.start()
            time.sleep(1)  # whoever started the processes should see the one first that failed
            os._exit(BYSTANDER)

    def _where(self) -> str:
        return f" The stacks of the ranks that live are in {self.folder}." if self.folder else ""

    def _write_stacks(self, words: str | None = None) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"rank-{self.rank}.txt").open("w", encoding="utf-8") as file:
                if words is not None:
                    file.write(words)
                else:
                    faulthandler.dump_traceback(file)
        except OSError as error:
            print(f"Rank {self.rank} could not write its stacks into {self.folder}: {error}.", file=sys.stderr)  # noqa: T201


def connect(rank: int, world_size: int, master_addr: str) -> Watch:
    """Called on every rank, once the process group is there. Raises DistributedError where rank 0 cannot be reached."""
    if rank:
        told: list[Any] = [None]
        dist.broadcast_object_list(told, src=0)
        port, token = told[0]
        try:
            link = Link(_kept_alive(socket.create_connection((master_addr, port), timeout=GREETING)))
        except OSError as error:
            raise DistributedError(
                f"Rank {rank} cannot reach rank 0 at {master_addr}:{port} ({error}); open all ports between them."
            ) from None
        link.send(rank=rank, token=token)
        watch = Watch(rank, link)
    else:
        ours, theirs = socket.socketpair()
        hub = Hub({0: Link(theirs), **_accept(world_size)})
        hub.start()
        watch = Watch(0, Link(ours), hub)
    dist.broadcast_object_list([None], src=0)  # rank 0 has read every greeting, and nothing that came after it
    _watch_from_now_on(watch)
    return watch


def _accept(world_size: int) -> dict[int, Link]:
    both = socket.has_dualstack_ipv6()
    with socket.create_server(("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=world_size) as door:
        port, token, links = door.getsockname()[1], secrets.token_hex(), dict[int, Link]()
        dist.broadcast_object_list([(port, token)], src=0)
        door.settimeout(GREETING)
        while absent := sorted(set(range(1, world_size)) - set(links)):
            try:
                guest = door.accept()[0]
            except TimeoutError:
                ranks = ", ".join(map(str, absent))
                raise DistributedError(
                    f"Rank 0 waited {GREETING} s at port {port} for ranks {ranks}; open all ports between them."
                ) from None
            guest.settimeout(5)
            hello = Link(guest).read()
            if hello and hello[0].get("token") == token:  # anybody may knock
                links[hello[0]["rank"]] = Link(_kept_alive(guest))
    return links


def _kept_alive(one: socket.socket) -> socket.socket:
    """So that a machine that is gone, and closes nothing, is noticed after 25 seconds."""
    one.settimeout(None)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for option, seconds in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
            one.setsockopt(socket.IPPROTO_TCP, option, seconds)
    return one


def _watch_from_now_on(watch: Watch) -> None:
    """What nobody catches is a failure of the run."""
    WATCHES.append(watch)
    atexit.register(watch.leave)
    plain = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, where: Any) -> None:
        watch.failed(error)
        if watch.speaks:
            plain(kind, error, where)

    sys.excepthook = hook
    # a forked process, of a pool say, would keep the connection open after this one's death
    links = [watch._link, *(watch._hub.links.values() if watch._hub else ())]
    os.register_at_fork(after_in_child=lambda: [link.socket.close() for link in links])


def speaks_for_all(error: BaseException) -> bool:
    """Whether this is the one process to print `error`, of those of its run. The others are told of it."""
    for watch in WATCHES:
        watch.failed(error)
    return all(watch.speaks for watch in WATCHES)


def leave_for_good(status: int) -> None:
    """Ends this process, where it is one of several, with `status`, and spares it the end of the interpreter (see `Watch.leave`)."""
    for watch in WATCHES:
        watch.leave()
        flush()
        os._exit(status)


def from_network(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or any(mark in str(error) for mark in NETWORK)


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def record(error: BaseException) -> None:
    """For whoever started the processes: torchrun, and `burnish --devices`, show last what is in this file."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    where = error.__traceback__
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001  PyTorch takes the traceback from the one that is being handled
        get_error_handler().record_exception(raised)
    error.__traceback__ = where


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
