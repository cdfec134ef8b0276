"""Checkpoint folders: written aside, hashed, fsynced, and renamed last. Nothing here knows what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or must not be continued from. One sentence: what, where, what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The checkpoint to continue from, and what was passed over on the way to it."""

    path: Path | None
    """None where there is no valid checkpoint: start at step 0."""
    step: int
    """Optimizer steps that the checkpoint has behind it; 0 without one."""
    skipped: tuple[tuple[Path, str], ...]
    """Newer checkpoints that are damaged, each with the reason, newest first."""


def save_checkpoint(
    output_dir: Path,
    step: int,
    write: Callable[[Path], None],
    *,
    identity: Mapping[str, str],
    save_total_limit: int | None = None,
    keep: Path | None = None,
) -> Path:
    """Write `output_dir/checkpoint-<step>` so that it is seen whole or not at all; call on one process only.

    `write(folder)` fills an empty temporary folder beside it. Every file is then hashed and fsynced, listed in
    `manifest.json` with `identity`, and the folder renamed. A checkpoint already there is replaced.
    Afterwards the oldest valid checkpoints are deleted until `save_total_limit` remain; `keep` (the best one) and the
    one just written stay whatever the limit.

    Raises:
        CheckpointError: the disk is full. The temporary folder is gone, earlier checkpoints are untouched.
    """
    raise NotImplementedError


def find_checkpoint(output_dir: Path, identity: Mapping[str, str], *, path: Path | None = None) -> Found:
    """The newest checkpoint whose every file has the size and hash of its manifest; damaged ones are skipped and named.

    With `path` that checkpoint and no other is considered.

    Raises:
        CheckpointError: a checkpoint belongs to another run (`identity` differs; each differing key is named with both
            values), or `path` is damaged or missing.
    """
    raise NotImplementedError


def clean(output_dir: Path) -> tuple[Path, ...]:
    """Remove what processes that died while saving left behind, and say what that was. Both functions above begin with it."""
    raise NotImplementedError
