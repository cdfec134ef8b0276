"""A run's folder: what it holds, whether it may be continued, and what is written beside the checkpoints."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from burnish.checkpoint.continued import refuse
from burnish.checkpoint.files import CheckpointError, Found, checkpoints, clean, find_checkpoint
from burnish.checkpoint.saving import Saver
from burnish.checkpoint.state import TrainState
from burnish.distributed.launch import Launch, gather

METRICS = "metrics.jsonl"
T = TypeVar("T")


class RunDirectory:
    """`output_dir`: checkpoint-*/, metrics.jsonl, resolved.yaml, environment.json, data.json, and the final model."""

    def __init__(self, path: Path, here: Launch) -> None:
        self.path, self.here = path, here
        self._lock: Any = None
        self._saver = Saver(here)

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    def hold(self) -> None:
        """Until as many `release`s, or the end of this process, no other trains into this folder; a killed process holds nothing.

        Called on every rank. Raises CheckpointError where another process does, or the folder cannot be made.
        """
        self._on_main(self._hold, "rank 0 to open the run's folder")

    def _hold(self) -> None:
        import filelock

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._lock or filelock.FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CheckpointError(f"Another process trains into {self.path}; wait for it, end it, or name another output_dir.") from None
        except OSError as error:
            raise CheckpointError(f"output_dir {self.path} cannot be written to ({error.strerror}); name another, or mend it.") from error

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def settled(self, say: Callable[[str], object]) -> Iterator[None]:
        """Releases the folder in the end, with nothing being written any more.

        What a run that fails is still writing may be its last good checkpoint: it is waited for, and `say` told if it fails, too.
        """
        try:
            yield
        except BaseException:
            try:
                self.finish()
            except Exception as error:  # noqa: BLE001  said, since another one is on its way
                say(str(error))
            raise
        finally:
            self.release()

    def last_good(self) -> str:
        """The newest checkpoint in words, for an error."""
        here = checkpoints(self.path)
        return f"the last good checkpoint is {here[-1]}" if here else "no checkpoint was written before"

    def find(self, wanted: str, identity: Mapping[str, str], *, overwrite: bool, done: int = 0) -> Found:
        """Where to begin: called on every rank, rank 0 looks, and all get what it found.

        `wanted` is "auto" (continue the run that is here), "never", or a checkpoint's path. `overwrite` deletes what is here, unless
        this process has written it: `done` is the number of steps that are behind it.
        Raises CheckpointError where the folder holds another run, or one that `wanted` does not want, without `overwrite`; and where
        steps are done that no checkpoint leads back to.
        """
        look = partial(self._find, wanted, identity, overwrite and not done)
        found = self._on_main(look, "rank 0 to find a checkpoint and check its files")
        if done and found.path is None:
            raise CheckpointError(f"This trainer has done {done} steps and {self.path} holds no checkpoint of them; make a new trainer.")
        return found

    def _find(self, wanted: str, identity: Mapping[str, str], overwrite: bool) -> Found:
        refuse(self.path, wanted, overwrite=overwrite)
        try:
            if overwrite:
                self.clear()
            if overwrite or wanted == "never":
                return Found(path=None, step=0, skipped=())
            found = find_checkpoint(self.path, identity, path=None if wanted == "auto" else Path(wanted))
            if found.path is not None and found.path.parent.resolve() == self.path.resolve():
                _metrics_of(found.path)
            return found
        except OSError as error:
            raise CheckpointError(
                f"{error.filename or self.path} cannot be read or changed ({error.strerror}); see who may, or name another output_dir."
            ) from error

    def clear(self) -> None:
        """Deletes the checkpoints and metrics of an earlier run. Nothing else in the folder is touched."""
        clean(self.path)
        for checkpoint in checkpoints(self.path):
            shutil.rmtree(checkpoint)
        self.metrics.unlink(missing_ok=True)

    def adopt_metrics(self, checkpoint: Path) -> None:
        """Where `checkpoint` lies in another run's folder: brings the lines here that belong to it, which were written there."""
        theirs = checkpoint.parent / METRICS
        if checkpoint.parent.resolve() != self.path.resolve() and theirs.exists():
            self.metrics.write_bytes(_metrics_of(checkpoint))

    def describe(self, *, config: str, environment: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Writes what the run is made of: resolved.yaml, environment.json, data.json."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "resolved.yaml").write_text(config, encoding="utf-8")
            for name, content in (("environment", environment), ("data", data)):
                (self.path / f"{name}.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"output_dir {self.path} cannot be written to ({error.strerror}); name another, or mend it.") from error

    def save(
        self, state: TrainState, identity: Mapping[str, str], *, limit: int | None, metrics_offset: int, background: bool = False
    ) -> None:
        """Writes `checkpoint-<step>`; called on every rank. In the background, training goes on from a copy in memory.

        Raises CheckpointError, on every rank, on a full disk, with everything earlier untouched.
        """
        self.finish()
        state.metrics_offset, trainer = metrics_offset, state.trainer
        state.metrics_sha256 = _sha256(self.metrics, metrics_offset) if self.here.main else ""
        if trainer.best_global_step == trainer.global_step:
            trainer.best_model_checkpoint = str(self.path / f"checkpoint-{trainer.global_step}")
        keep = Path(trainer.best_model_checkpoint) if trainer.best_model_checkpoint else None
        snapshot, how = state.snapshot(self.here, copy=background), {"identity": identity, "save_total_limit": limit, "keep": keep}
        self._saver.save(self.path, trainer.global_step, snapshot, background=background, **how)

    def finish(self) -> None:
        """Until the checkpoint that is being written in the background is on disk. Raises what that raised."""
        self._saver.wait()

    def _on_main(self, work: Callable[[], T], what: str) -> T:
        """Rank 0 works; every rank gets its result, or raises what it raised: none is left waiting for it."""
        result, error = None, None
        if self.here.main:
            try:
                result = work()
            except Exception as raised:  # noqa: BLE001  raised again below, on every rank
                error = raised
        result, told = gather((result, error and str(error)), self.here, what)[0]
        if told is not None:
            raise error or CheckpointError(told)
        return result


def _metrics_of(checkpoint: Path) -> bytes:
    """The lines beside `checkpoint` that belong to it; fewer where some are missing. Raises CheckpointError where one was changed."""
    path, state = checkpoint.parent / METRICS, json.loads((checkpoint / "loop_state.json").read_text(encoding="utf-8"))
    lines = path.read_bytes()[: state["metrics_offset"]] if path.exists() else b""
    if len(lines) == state["metrics_offset"] and hashlib.sha256(lines).hexdigest() != state["metrics_sha256"]:
        raise CheckpointError(
            f"{path} was changed: its first {len(lines):,} bytes are not those that {checkpoint.name} was written with; "
            "put the original back, name an earlier checkpoint with resume_from_checkpoint, or start over in another output_dir."
        )
    return lines


def _sha256(path: Path, size: int) -> str:
    return hashlib.sha256(path.read_bytes()[:size] if path.exists() else b"").hexdigest()
