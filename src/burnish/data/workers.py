"""Worker processes that prepare batches.

They are started as fresh interpreters: forking is unsafe once torch or the tokenizer has threads, and `multiprocessing`'s
spawn imports the user's script again. A batch goes down a worker's stdin as a pickle, its columns come back on its stdout.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from burnish.data.rows import DataError, Row

COMMAND = [sys.executable, "-c", "from burnish.data.workers import serve; serve()"]


class Workers:
    """`count` processes that each hold a `BatchPreparer` of `arguments`. Call it from as many threads."""

    def __init__(self, count: int, arguments: dict[str, Any]) -> None:
        try:
            message = pickle.dumps(arguments)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise DataError(f"The tokenizer cannot be sent to worker processes ({error}); prepare with dataset_num_proc=1.") from error
        # One thread each: together they fill the cores, and the tokenizer's own threads would contend.
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._processes = [subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) for _ in range(count)]
        self._idle: queue.SimpleQueue[tuple[subprocess.Popen[bytes], bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put((process, message))

    def __call__(self, rows: Sequence[Row], first: int) -> Any:
        """What `BatchPreparer` returns, or raises, for these rows."""
        process, before = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(before + pickle.dumps((rows, first)))
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (OSError, EOFError) as error:
            raise DataError(
                f"A worker process ended with status {process.wait(10)} while it prepared rows {first} to {first + len(rows) - 1} "
                "(its message stands above); prepare with dataset_num_proc=1."
            ) from error
        finally:
            self._idle.put((process, b""))  # a dead one too: whoever takes it next is told, and none waits for ever
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):  # of a worker that died before it had read all
                    pipe.close()


def serve() -> None:
    """A worker's life: read arguments, then batches, until stdin ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints must not end up among the answers
    from burnish.data.prepare_batch import BatchPreparer

    prepare = BatchPreparer(**pickle.load(requests))
    while True:
        try:
            rows, first = pickle.load(requests)
        except EOFError:
            return
        try:
            answer: Any = prepare(rows, first)
        except DataError as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()
