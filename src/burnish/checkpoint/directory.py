"""A run's folder: what it holds, whether it may be continued, and what is written beside the checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from burnish.checkpoint.continued import refuse
from burnish.checkpoint.files import CheckpointError, Found, checkpoints, clean, find_checkpoint, save_checkpoint
from burnish.checkpoint.state import TrainState, random_state
from burnish.distributed.launch import Launch, all_sum, gather

METRICS = "metrics.jsonl"
T = TypeVar("T")


class RunDirectory:
    """`output_dir`: checkpoint-*/, metrics.jsonl, resolved.yaml, environment.json, data.json, and the final model."""

    def __init__(self, path: Path, here: Launch) -> None:
        self.path, self.here = path, here
        self._lock: Any = None

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    def hold(self) -> None:
        """Until `release`, or the end of this process, no other trains into this folder; a killed process holds nothing.

        Called on every rank. Raises CheckpointError where another process does, or the folder cannot be made.
        """
        self._on_main(self._hold)

    def _hold(self) -> None:
        import filelock

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CheckpointError(f"Another process trains into {self.path}; wait for it, end it, or name another output_dir.") from None
        except OSError as error:
            raise CheckpointError(f"output_dir {self.path} cannot be written to ({error.strerror}); name another, or mend it.") from error

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def last_good(self) -> str:
        """The newest checkpoint in words, for an error."""
        here = checkpoints(self.path)
        return f"the last good checkpoint is {here[-1]}" if here else "no checkpoint was written before"

    def find(self, wanted: str, identity: Mapping[str, str], *, overwrite: bool) -> Found:
        """Where to begin: called on every rank, rank 0 looks, and all get what it found.

        `wanted` is "auto" (continue the run that is here), "never", or a checkpoint's path. `overwrite` deletes what is here.
        Raises CheckpointError where the folder holds another run, or one that `wanted` does not want, without `overwrite`.
        """
        return self._on_main(partial(self._find, wanted, identity, overwrite))

    def _find(self, wanted: str, identity: Mapping[str, str], overwrite: bool) -> Found:
        refuse(self.path, wanted, overwrite=overwrite)
        if overwrite:
            self.clear()
        if overwrite or wanted == "never":
            return Found(path=None, step=0, skipped=())
        return find_checkpoint(self.path, identity, path=None if wanted == "auto" else Path(wanted))

    def clear(self) -> None:
        """Deletes the checkpoints and metrics of an earlier run. Nothing else in the folder is touched."""
        clean(self.path)
        for checkpoint in checkpoints(self.path):
            shutil.rmtree(checkpoint)
        self.metrics.unlink(missing_ok=True)

    def adopt_metrics(self, checkpoint: Path, offset: int) -> None:
        """Where `checkpoint` lies in another run's folder: brings the lines here that belong to it, which were written there."""
        theirs = checkpoint.parent / METRICS
        if checkpoint.parent.resolve() != self.path.resolve() and theirs.exists():
            self.metrics.write_bytes(theirs.read_bytes()[:offset])

    def describe(self, *, config: str, environment: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Writes what the run is made of: resolved.yaml, environment.json, data.json."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "resolved.yaml").write_text(config, encoding="utf-8")
            for name, content in (("environment", environment), ("data", data)):
                (self.path / f"{name}.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"output_dir {self.path} cannot be written to ({error.strerror}); name another, or mend it.") from error

    def save(self, state: TrainState, identity: Mapping[str, str], *, limit: int | None, metrics_offset: int) -> None:
        """Writes `checkpoint-<step>`: called on every rank, written by rank 0.

        Raises CheckpointError, on every rank, on a full disk, with everything earlier untouched.
        """
        random_states, meter = gather(random_state(), self.here), all_sum(state.meter, self.here)
        state.meter, state.metrics_offset = (meter if self.here.main else {}), metrics_offset
        trainer = state.trainer
        if trainer.best_global_step == trainer.global_step:
            trainer.best_model_checkpoint = str(self.path / f"checkpoint-{trainer.global_step}")
        keep = Path(trainer.best_model_checkpoint) if trainer.best_model_checkpoint else None
        write = partial(state.write, random_states=random_states)
        self._on_main(partial(save_checkpoint, self.path, trainer.global_step, write, identity=identity, save_total_limit=limit, keep=keep))

    def _on_main(self, work: Callable[[], T]) -> T:
        """Rank 0 works; every rank gets its result, or raises what it raised: none is left waiting for it."""
        result, error = None, None
        if self.here.main:
            try:
                result = work()
            except Exception as raised:  # noqa: BLE001  raised again below, on every rank
                error = raised
        result, told = gather((result, error and str(error)), self.here)[0]
        if told is not None:
            raise error or CheckpointError(told)
        return result
