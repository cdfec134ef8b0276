"""Log-probs of a reference on disk, by content: computed once for each example, whoever asks first, and shared between runs.

One SQLite file for each reference (its weights, compute dtype and temperature). What `add` has written survives whatever becomes
of the process, so a pass that was killed goes on where it was. Every entry has a checksum: what the disk has changed since is
computed anew, and never trained on.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from burnish.data.cache import default_cache_dir
from burnish.data.rows import DataError
from burnish.types import Example

logger = logging.getLogger(__name__)
DEADLINE_S = 60.0
"""For which another process may hold the file; a transaction takes milliseconds."""
SCHEMA = "CREATE TABLE logps (example BLOB PRIMARY KEY, logp BLOB NOT NULL, checksum BLOB NOT NULL)"
AT_ONCE = 500
"""Keys in one query; SQLite takes at least 999."""
AGAIN = "start the same command again, which computes anew what is not there"


def example_key(example: Example) -> bytes:
    """16 bytes that are the same for the same token ids, cut into prompt and branches alike, with the same of them trained."""
    parts = [example.prompt, *(branch.segments for branch in example.branches)]
    segments = [segment for part in parts for segment in part]
    lengths = [len(segment) for segment in segments]
    found = blake2b(np.array([len(parts), *(sum(map(len, part)) for part in parts)], dtype="<i8").tobytes(), digest_size=16)
    for segment in segments:
        found.update(np.ascontiguousarray(segment.token_ids, dtype="<i4").data)
    found.update(np.packbits(np.repeat(np.array([s.trained for s in segments], dtype=bool), lengths)).data)
    return found.digest()


class KnownLogps:
    """Log-probs of every target of an example under one reference, by `example_key`.

    `reference` is a line that says whose they are: the model's identity, compute dtype, temperature, and the version of whatever
    else they depend on. `cache_dir` defaults to ``$BURNISH_CACHE`` or ``~/.cache/burnish``. Any number of processes of one machine
    may read and write at once. Pickled, it is the path alone.

    Errors, of every method: DataError where the file cannot be written, or another process holds it for longer than `DEADLINE_S`.
    """

    def __init__(self, cache_dir: str | Path | None, reference: str) -> None:
        name = blake2b(reference.encode(), digest_size=16).hexdigest()
        self.path = Path(cache_dir or default_cache_dir()).expanduser() / "references" / f"{name}.sqlite"
        self._opened: tuple[int, sqlite3.Connection] | None = None

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path, self._opened = path, None

    def __enter__(self) -> KnownLogps:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """The next call of a method opens it anew."""
        if self._opened is not None and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None

    def missing(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of `keys` that `get` would not find. Reads and checks all of the others; what is damaged is forgotten, with a warning."""
        wanted = list(dict.fromkeys(keys))
        found, damaged = set[bytes](), list[tuple[bytes]]()
        with self._connected() as connection:
            for start in range(0, len(wanted), AT_ONCE):
                some = wanted[start : start + AT_ONCE]
                places = ",".join("?" * len(some))
                for key, logp, checksum in connection.execute(f"SELECT * FROM logps WHERE example IN ({places})", some):
                    if _checksum(key, logp) == checksum:
                        found.add(key)
                    else:
                        damaged.append((key,))
            if damaged:
                logger.warning("%d of the reference's log-probs in %s are damaged and will be computed anew.", len(damaged), self.path)
                with _transaction(connection):
                    connection.executemany("DELETE FROM logps WHERE example = ?", damaged)
        return set(wanted) - found

    def add(self, items: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Writes log-probs `[trained_tokens]` by key, all or none of them; on disk when this returns. What is there already stays.

        Errors: DataError as well where one is not finite, and nothing is written.
        """
        rows = []
        for key, logp_N in items:
            if not np.isfinite(logp_N).all():
                raise DataError("The reference gives log-probs that are not finite; look at its weights, or compute in another dtype.")
            content = np.ascontiguousarray(logp_N, dtype="<f4").tobytes()
            rows.append((key, content, _checksum(key, content)))
        with self._connected() as connection, _transaction(connection):
            connection.executemany("INSERT OR IGNORE INTO logps VALUES (?, ?, ?)", rows)

    def get(self, key: bytes, length: int | None = None) -> np.ndarray:
        """The log-probs, float32 `[trained_tokens]`, read-only.

        Errors: DataError as well where they are not there, were changed on disk, or are not `length` of them.
        """
        with self._connected() as connection:
            row = connection.execute("SELECT logp, checksum FROM logps WHERE example = ?", (key,)).fetchone()
        if row is None:
            raise DataError(f"{self.path} holds no log-probs of the reference for an example (key {key.hex()}); {AGAIN}.")
        content, checksum = row
        if _checksum(key, content) != checksum:
            raise DataError(f"{self.path} holds damaged log-probs of the reference (key {key.hex()}); {AGAIN}.")
        logp_N = np.frombuffer(content, dtype="<f4")
        if length not in (None, len(logp_N)):
            raise DataError(
                f"{self.path} holds {len(logp_N)} log-probs of the reference for an example of {length} targets (key {key.hex()}); "
                "delete the file and start again."
            )
        return logp_N

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """What goes wrong with the file is said in one sentence."""
        try:
            if self._opened is None or self._opened[0] != os.getpid():  # a connection does not survive a fork
                self._opened = os.getpid(), self._connect()
            yield self._opened[1]
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                self.close()
                raise DataError(f"{self.path} is damaged ({error}); {AGAIN}.") from error
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise self._held() from error
            raise self._not_written(str(error)) from error
        except OSError as error:
            raise self._not_written(error.strerror or str(error)) from error

    def _not_written(self, why: str) -> DataError:
        return DataError(
            f"The log-probs of the reference cannot be written to {self.path} ({why}); "
            "make room there, or name another folder with dataset_cache_dir or BURNISH_CACHE."
        )

    def _held(self) -> DataError:
        return DataError(f"Another process has held {self.path} for {DEADLINE_S:.0f} s; see whether it is alive, and end it if it hangs.")

    def _connect(self) -> sqlite3.Connection:
        """One process at a time, so that of several that find damage one begins anew."""
        import filelock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self.path.with_suffix(".lock"), timeout=DEADLINE_S):
                try:
                    return _opened(self.path)
                except sqlite3.DatabaseError as damage:
                    if not _is_damage(damage):
                        raise
                    aside = self.path.with_suffix(".damaged")
                    logger.warning("%s is damaged (%s): it is set aside as %s, and begun anew.", self.path, damage, aside.name)
                    for leftover in ("-wal", "-shm", "-journal"):
                        self.path.with_name(self.path.name + leftover).unlink(missing_ok=True)
                    self.path.replace(aside)
                    return _opened(self.path)
        except filelock.Timeout as error:
            raise self._held() from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """And not a full disk, say. Since our queries are right, one that makes no sense to SQLite means that the file makes none."""
    return not isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode == sqlite3.SQLITE_ERROR


def _opened(path: Path) -> sqlite3.Connection:
    """Checks the whole file but for the entries' content. Errors: sqlite3.DatabaseError."""
    connection = sqlite3.connect(path, timeout=DEADLINE_S, isolation_level=None, check_same_thread=False)
    try:
        tables = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        with suppress(sqlite3.OperationalError):  # the file system has no shared memory: SQLite's plain journal does
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if not tables:
            connection.execute(SCHEMA)
        elif tables != [(SCHEMA,)]:
            raise sqlite3.DatabaseError("its table is not that of log-probs")
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.splitlines()[-1])
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def _checksum(key: bytes, content: bytes) -> bytes:
    return blake2b(key + content, digest_size=8).digest()


def with_logps(example: Example, known: KnownLogps) -> Example:
    """The example with its log-probs under the reference, which `known` must hold."""
    return replace(example, ref_logp=known.get(example_key(example), example.trained_tokens))
