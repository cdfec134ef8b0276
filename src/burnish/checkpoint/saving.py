"""Checkpoints written by all ranks together, at once or while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from burnish.checkpoint.files import CheckpointError, save_checkpoint
from burnish.checkpoint.state import Snapshot
from burnish.distributed.launch import Launch
from burnish.distributed.shards import Channel


class Saver:
    """One checkpoint at a time. What a write in the background raises is raised by the next `wait`, on every rank."""

    def __init__(self, here: Launch) -> None:
        self.here = here
        self._channel = Channel(here)
        self._threads: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def save(self, output_dir: Path, step: int, snapshot: Snapshot, *, background: bool, **how: Any) -> None:
        """Writes `snapshot` into `output_dir/checkpoint-<step>`; call on every rank. `how` goes to `files.save_checkpoint`.

        Raises CheckpointError, on every rank, on a full disk, with everything earlier untouched.
        """
        self.wait()
        self._channel.open()
        work = partial(self._lead, output_dir, step, snapshot, how) if self.here.main else partial(self._follow, snapshot)
        if not background:
            work()
            return
        self._threads = self._threads or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = self._threads.submit(work)

    def wait(self) -> None:
        """Until what is being written is on disk. Raises what it raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _lead(self, output_dir: Path, step: int, snapshot: Snapshot, how: Mapping[str, Any]) -> None:
        """Rank 0 makes the folder, calls the others into it, and has the last word."""
        called = False

        def write(folder: Path) -> None:
            nonlocal called
            called = True
            self._channel.gather(folder)
            self._parts(snapshot, folder)
            snapshot.write_rest(folder)

        error: Exception | None = None
        try:
            save_checkpoint(output_dir, step, write, **how)
        except Exception as raised:  # noqa: BLE001  raised again, after the others have been told
            error = raised
        if not called:
            self._channel.gather(None)
        self._channel.gather(error and str(error))
        if error is not None:
            raise error

    def _follow(self, snapshot: Snapshot) -> None:
        folder = self._channel.gather(None)[0]
        if folder is not None:
            with suppress(Exception):  # every rank has raised; rank 0 says what becomes of it
                self._parts(snapshot, folder)
        told = self._channel.gather(None)[0]
        if told is not None:
            raise CheckpointError(told)

    def _parts(self, snapshot: Snapshot, folder: Path) -> None:
        """Raises, on every rank, what one of them raised."""
        errors = self._channel.gather(_raised(partial(snapshot.write_part, folder, self._channel)))
        if failed := [error for error in errors if error is not None]:
            raise failed[0]


def _raised(work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  a value, to be told to the other ranks
        return error
    return None
