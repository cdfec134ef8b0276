"""Checkpoint folders: written aside, hashed, fsynced, and renamed last. Nothing here knows what a checkpoint holds.

A folder `checkpoint-<step>` is seen whole or not at all, wherever a process dies: a new one is filled under a `tmp-` name,
an old one is given a `tmp-` name before it is deleted, and one that is replaced waits under a `replaced-` name.

SHA-256 is the fastest safe hash of the standard library on processors with SHA instructions (1.2 GB/s a thread where
BLAKE2b has 0.8). An optimizer's state is one huge file, so files are hashed in pieces, on all cores.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
THREADS = min(16, os.cpu_count() or 1)
PIECE = 1 << 26
OUT_OF_SPACE = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.EFBIG: ("the disk or `ulimit -f` refuses a file this large", "raise the limit"),
}
FORBIDDEN = {
    errno.EACCES: ("the folder may not be written to", "change its permissions"),
    errno.EPERM: ("the folder may not be written to", "change its permissions"),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EIO: ("the disk does not work", "mend it"),
    errno.ESTALE: ("the folder was lost on its server", "bring it back"),
}
"""errno → (what is wrong, what to do)."""


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
    Afterwards the oldest valid checkpoints of this run are deleted until `save_total_limit` remain; `keep` (the best one)
    and the one just written stay whatever the limit. Damaged ones and those of another run are not counted and not touched.

    Raises:
        CheckpointError: the disk is full, or not to be written to. The temporary folder is gone, where it can be deleted; earlier
            checkpoints are untouched.
        ValueError: `save_total_limit` is below 1.
    """
    if save_total_limit is not None and save_total_limit < 1:
        raise ValueError(f"save_total_limit is {save_total_limit}; give at least 1, or none to keep every checkpoint.")
    folder = output_dir / f"tmp-checkpoint-{step}-{os.getpid()}"
    final = output_dir / f"checkpoint-{step}"
    try:
        clean(output_dir)
        folder.mkdir(parents=True)
        write(folder)
        _seal(folder, step, identity)
        _publish(folder, final)
    except BaseException as error:
        written = sum(file.stat().st_size for file in _files(folder))
        shutil.rmtree(folder, ignore_errors=True)
        number = _errno(error)
        if number is None:
            raise
        raise CheckpointError(_not_saved(final, number, written)) from error
    if save_total_limit is not None:
        try:
            _prune(output_dir, identity, save_total_limit, stay={final.resolve()} | ({keep.resolve()} if keep else set()))
        except OSError as error:
            raise CheckpointError(
                f"{final} was saved, but older checkpoints cannot be deleted ({error.strerror}); see who may write to {output_dir}, and "
                "start the same command again, which continues from it."
            ) from error
    return final


def find_checkpoint(output_dir: Path, identity: Mapping[str, str], *, path: Path | None = None) -> Found:
    """The newest checkpoint whose every file has the size and hash of its manifest; damaged ones are skipped and named.

    Call on one process only. With `path` that checkpoint and no other is considered.

    Raises:
        CheckpointError: a checkpoint belongs to another run (`identity` differs; each differing key is named with both
            values), or `path` is damaged or missing.
    """
    clean(output_dir)
    skipped: list[tuple[Path, str]] = []
    for folder in [path] if path else reversed(checkpoints(output_dir)):
        try:
            manifest = _read_manifest(folder)
            if not path and folder.name != f"checkpoint-{manifest['step']}":
                raise _DamageError(f"{MANIFEST} is that of step {manifest['step']}")
            _check_identity(folder, manifest["identity"], identity)
            _check_files(folder, manifest["files"])
        except _DamageError as damage:
            skipped.append((folder, str(damage)))
        else:
            return Found(path=folder, step=manifest["step"], skipped=tuple(skipped))
    if path:
        raise CheckpointError(
            f"{path} cannot be resumed from: {skipped[0][1]}; name another checkpoint, or none to take the newest valid one."
        )
    return Found(path=None, step=0, skipped=tuple(skipped))


def check_options(output_dir: Path, options: Mapping[str, str], *, path: Path | None = None) -> None:
    """Compares `options`, a part of a run's identity, with the newest checkpoint whose manifest can be read, or with `path`.

    Nothing is deleted and no file is hashed: it takes milliseconds. Raises CheckpointError as `find_checkpoint` does.
    """
    for folder in [path] if path else reversed(checkpoints(output_dir)):
        try:
            theirs = _read_manifest(folder)["identity"]
        except _DamageError:
            continue
        _check_identity(folder, {name: value for name, value in theirs.items() if name in options}, options)
        return


def clean(output_dir: Path) -> tuple[Path, ...]:
    """Remove what processes that died while saving left behind, and say what that was. Both functions above begin with it."""
    removed = []
    for aside in output_dir.glob("replaced-checkpoint-*"):
        final = aside.with_name(aside.name.removeprefix("replaced-"))
        if final.exists():
            shutil.rmtree(aside)
            removed.append(aside)
        else:
            aside.rename(final)
    for folder in output_dir.glob("tmp-checkpoint-*"):
        owner = re.fullmatch(r"tmp-checkpoint-\d+-(\d+)", folder.name)
        if owner and not _runs_elsewhere(int(owner[1])):
            shutil.rmtree(folder)
            removed.append(folder)
    return tuple(removed)


def checkpoints(output_dir: Path) -> list[Path]:
    """All folders named `checkpoint-<step>`, valid or not, by step."""
    found = [(int(name[1]), path) for path in output_dir.glob("checkpoint-*") if (name := re.fullmatch(r"checkpoint-(\d+)", path.name))]
    return [path for _, path in sorted(found)]


class _DamageError(Exception):
    """Why a folder is not a valid checkpoint."""


def _runs_elsewhere(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256s(paths: Sequence[Path], pool: ThreadPoolExecutor) -> Iterator[str]:
    """Of each file the SHA-256 of the SHA-256s of its pieces of 64 MiB, as a lazy series; the work starts now."""
    pieces = [[pool.submit(_piece_sha256, path, start) for start in range(0, path.stat().st_size or 1, PIECE)] for path in paths]
    return (hashlib.sha256(b"".join(piece.result() for piece in file)).hexdigest() for file in pieces)


def _piece_sha256(path: Path, start: int) -> bytes:
    digest, left = hashlib.sha256(), PIECE
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.digest()


def _manifest_text(body: Mapping[str, Any]) -> str:
    """The one spelling of a manifest, with a hash of itself: any changed byte is noticed."""
    plain = json.dumps(body, sort_keys=True)
    return json.dumps({**body, "sha256": hashlib.sha256(plain.encode()).hexdigest()}, indent=1, sort_keys=True) + "\n"


def _seal(folder: Path, step: int, identity: Mapping[str, str]) -> None:
    files = _files(folder)
    with ThreadPoolExecutor(THREADS) as pool:
        # The disk works while the processors hash.
        hashes = _sha256s(files, pool)
        for path in files:
            _fsync(path)
        entries = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest}
            for path, digest in zip(files, hashes, strict=True)
        }
    manifest = folder / MANIFEST
    manifest.write_text(_manifest_text({"format": FORMAT, "step": step, "identity": dict(identity), "files": entries}), encoding="utf-8")
    for path in (manifest, *(child for child in folder.rglob("*") if child.is_dir()), folder):
        _fsync(path)


def _publish(folder: Path, final: Path) -> None:
    aside = final.with_name(f"replaced-{final.name}")
    if final.exists():
        final.rename(aside)
    folder.rename(final)
    _fsync(final.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        body = json.loads(text)
        del body["sha256"]
        intact = _manifest_text(body) == text
    except FileNotFoundError:
        raise _DamageError(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise _DamageError(f"{MANIFEST} cannot be read") from None
    if not intact:
        raise _DamageError(f"{MANIFEST} was changed after it was written")
    if body["format"] != FORMAT:
        raise _DamageError(f"{MANIFEST} has format {body['format']}, and this version reads format {FORMAT}")
    return body


def _check_files(folder: Path, entries: Mapping[str, Mapping[str, Any]], *, hashes: bool = True) -> None:
    for name, entry in entries.items():
        path = folder / name
        if not path.is_file():
            raise _DamageError(f"{name} is missing")
        if (size := path.stat().st_size) != entry["bytes"]:
            raise _DamageError(f"{name} has {size:,} bytes instead of {entry['bytes']:,}")
    if hashes:
        with ThreadPoolExecutor(THREADS) as pool:
            for (name, entry), digest in zip(entries.items(), _sha256s([folder / name for name in entries], pool), strict=True):
                if digest != entry["sha256"]:
                    raise _DamageError(f"the content of {name} does not have the hash it was written with")


def _check_identity(folder: Path, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    differing = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    if differing:
        parts = ", ".join("{} is {} there and {} here".format(key, *_shortened(theirs.get(key), ours.get(key))) for key in differing)
        raise CheckpointError(
            f"{folder} belongs to another run ({parts}); give this run another output_dir, or set overwrite_output_dir to start over."
        )


def _shortened(*values: str | None, width: int = 60) -> Iterator[str]:
    """Long values from shortly before the place where they begin to differ."""
    start = len(os.path.commonprefix([value or "" for value in values]))
    for value in values:
        if value is None:
            yield "absent"
        elif len(value) <= width:
            yield f"'{value}'"
        else:
            first = max(0, min(start - 10, len(value) - width))
            yield f"'{'…' * (first > 0)}{value[first : first + width]}{'…' * (first + width < len(value))}'"


def _prune(output_dir: Path, identity: Mapping[str, str], limit: int, stay: set[Path]) -> None:
    valid = []
    for folder in checkpoints(output_dir):
        try:
            manifest = _read_manifest(folder)
            _check_files(folder, manifest["files"], hashes=False)
        except _DamageError:
            continue
        if manifest["identity"] == dict(identity):
            valid.append(folder)
    deletable = [folder for folder in valid if folder.resolve() not in stay]
    for folder in deletable[: max(0, len(valid) - limit)]:
        doomed = folder.with_name(f"tmp-{folder.name}-{os.getpid()}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _errno(error: BaseException | None) -> int | None:
    """Of what a disk refused, where anything in the chain of exceptions says so.

    safetensors gives the errno in its message only; torch hides the OSError behind a RuntimeError of its own.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (named := re.search(r"os error (\d+)", str(error))):
            number = int(named[1])
        if number in OUT_OF_SPACE or number in FORBIDDEN:
            return number
        error = error.__cause__ or error.__context__
    return None


def _not_saved(final: Path, number: int, written: int) -> str:
    """What is needed is known from an earlier checkpoint; without one, from how far this one came."""
    why, remedy = (OUT_OF_SPACE | FORBIDDEN)[number]
    then = f"{remedy} or name another output_dir, and resume from the checkpoints before it, which are untouched."
    if number in FORBIDDEN:
        return f"{final} was not saved because {why}; {then}"
    needed = f"more than {_size(written)}"
    for folder in reversed(checkpoints(final.parent)):
        try:
            needed = f"about {_size(sum(entry['bytes'] for entry in _read_manifest(folder)['files'].values()))}"
        except _DamageError:
            continue
        break
    free = _size(shutil.disk_usage(final.parent if final.parent.exists() else Path.cwd()).free)
    return f"{final} was not saved because {why}: it needs {needed} and {free} are free; {then}"


def _size(count: int) -> str:
    power = min(3, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.{min(power, 1)}f} {('bytes', 'kB', 'MB', 'GB')[power]}"
