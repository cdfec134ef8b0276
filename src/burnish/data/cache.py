"""Prepared examples on disk, by content: made once per machine, whoever asks first; the others wait and say so."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from burnish.data.rows import DataError
from burnish.data.store import ExampleStore

logger = logging.getLogger(__name__)
DEADLINE_S = 3600.0


def default_cache_dir() -> Path:
    """``$BURNISH_CACHE``, or ``~/.cache/burnish``."""
    return Path(os.environ.get("BURNISH_CACHE") or Path.home() / ".cache" / "burnish")


def load_or_build(folder: Path, build: Callable[[Path], None], *, what: str, deadline_s: float = DEADLINE_S) -> ExampleStore:
    """The store in `folder`; where there is none, or a damaged one, `build` makes it in the empty path it is given.

    A finished store appears by one rename. One process builds, whatever their number; `what` says for whom the others wait.
    Errors: DataError where another process has not finished by the deadline, or the folder cannot be written.
    """
    import filelock

    if (folder / "manifest.json").exists():
        try:
            return ExampleStore.load(folder)
        except DataError as damage:
            logger.warning("The prepared rows of %s are damaged and will be made again: %s", what, damage)
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logger.warning("Another process prepares the rows of %s; waiting for it to write %s.", what, folder)
            lock.acquire(timeout=deadline_s)
        with lock:
            return _build(folder, build)
    except filelock.Timeout as error:
        raise DataError(
            f"Another process has held {lock.lock_file} for {deadline_s:.0f} s while it prepares the rows of {what}; "
            "see whether it is alive, and delete the file if it is not."
        ) from error
    except OSError as error:
        raise DataError(
            f"The prepared rows of {what} cannot be written to {folder} ({error.strerror or error}); "
            "make room there, or name another folder with dataset_cache_dir or BURNISH_CACHE."
        ) from error
    finally:
        lock.release()


def _build(folder: Path, build: Callable[[Path], None]) -> ExampleStore:
    try:
        return ExampleStore.load(folder)  # another process has finished it while this one waited
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed; the lock says that none is at work
    try:
        build(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return ExampleStore.load(folder)
