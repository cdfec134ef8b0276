"""Processes that prepare batches beside this one.

They are started as fresh interpreters: forking is unsafe once torch or the tokenizer has threads, and `multiprocessing`'s
spawn imports the user's script again. A worker gets the `BatchPreparer` of this process with what it has learnt, and imports
neither torch nor, for most templates, transformers: it is at work after a quarter of a second. Nobody waits for a worker to
start, and one that cannot is done without.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from burnish.data.rows import DataError, Row

COMMAND = (
    sys.executable,
    "-c",
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from burnish.data.workers import serve; serve()",
)
AHEAD = 2
"""Batches at a worker: the one it prepares and the next."""
logger = logging.getLogger(__name__)


class Workers:
    """`count` processes that prepare what `submit` gives them. Errors: DataError where the preparer cannot be sent to a process."""

    def __init__(self, count: int, preparer: Any) -> None:
        try:
            message = pickle.dumps(sys.path) + pickle.dumps(preparer) if count else b""
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise DataError(f"The tokenizer cannot be sent to worker processes ({error}); prepare with dataset_num_proc=1.") from error
        self._workers = [_Worker(message) for _ in range(count)]

    def submit(self, rows: Sequence[Row], first: int) -> Future[Any] | None:
        """What `BatchPreparer` will return, or raise, for these rows; None where no worker is ready for more."""
        worker = min(self._workers, key=_Worker.load, default=None)
        return None if worker is None or worker.load() >= AHEAD else worker.submit(rows, first)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class _Worker:
    """A process, a thread that writes to it, and one that reads from it."""

    def __init__(self, message: bytes) -> None:
        # One thread each: together they fill the cores, and the tokenizer's own threads would contend.
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process: Any = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        self._requests.put(message)
        self._asked: deque[tuple[Future[Any], str]] = deque()
        self._ready = self._closing = False
        self._lock = Lock()
        self._threads = [Thread(target=self._write, daemon=True), Thread(target=self._read, daemon=True)]
        for thread in self._threads:
            thread.start()

    def load(self) -> int:
        return len(self._asked) if self._ready else AHEAD

    def submit(self, rows: Sequence[Row], first: int) -> Future[Any] | None:
        request, future = pickle.dumps((rows, first)), Future[Any]()
        with self._lock:
            if not self._ready:  # it has just died
                return None
            self._asked.append((future, f"rows {first} to {first + len(rows) - 1}"))
        self._requests.put(request)
        return future

    def _write(self) -> None:
        with suppress(OSError):  # the reader sees the end of the process
            while (request := self._requests.get()) is not None:
                self._process.stdin.write(request)
                self._process.stdin.flush()

    def _read(self) -> None:
        try:
            self._ready = pickle.load(self._process.stdout)
            while True:
                answer = pickle.load(self._process.stdout)
                future, _ = self._asked.popleft()
                future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)
        except (OSError, EOFError, pickle.UnpicklingError):
            self._end()

    def _end(self) -> None:
        self._process.kill()
        status = self._process.wait()
        with self._lock:
            started, self._ready = self._ready, False
        if not started and not self._closing:
            logger.warning(
                "A worker process ended with status %d as it started (its message stands above); rows are prepared without it.", status
            )
        for future, what in self._asked:
            said = f"A worker process ended with status {status} while it prepared {what} (its message stands above)"
            future.set_exception(DataError(f"{said}; prepare with dataset_num_proc=1."))

    def close(self) -> None:
        self._closing = True
        self._requests.put(None)
        self._process.kill()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # of a worker that died before it had read all
                pipe.close()


def serve() -> None:
    """A worker's life: read a preparer, then batches, until stdin ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints must not end up among the answers
    prepare = pickle.load(requests)
    answer: Any = True
    while True:
        try:
            pickle.dump(answer, answers)
            answers.flush()
            rows, first = pickle.load(requests)
        except (EOFError, BrokenPipeError):  # whoever asked is gone
            os._exit(0)
        try:
            answer = prepare(rows, first)
        except DataError as error:
            answer = error
