import errno
import json
import os
import resource
import subprocess

import pytest

from burnish.checkpoint import files
from burnish.checkpoint.files import CheckpointError, Found, clean, find_checkpoint, save_checkpoint

RUN = {"model": "Llama 1", "data": "rows 7", "config": "abc"}


def content(step=0, size=1000):
    """A write function: two files, one of them in a folder."""

    def write(folder):
        (folder / "model.bin").write_bytes(step.to_bytes(1, "big") * size)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "config.json").write_text('{"r": 8}')

    return write


def save(output_dir, *steps, **options):
    return [save_checkpoint(output_dir, step, content(step), identity=RUN, **options) for step in steps][-1]


def names(output_dir):
    return sorted(path.name for path in output_dir.iterdir())


def flip(path, at=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 0x10
    path.write_bytes(data)


def test_a_saved_checkpoint_is_found_with_its_files_and_nothing_beside_it(tmp_path):
    saved = save(tmp_path / "new" / "run", 3)
    assert saved == tmp_path / "new" / "run" / "checkpoint-3"
    assert names(saved.parent) == ["checkpoint-3"]
    assert names(saved) == ["adapter", "manifest.json", "model.bin"]
    manifest = json.loads((saved / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["identity"]) == (1, 3, RUN)
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {"adapter/config.json": 8, "model.bin": 1000}
    assert find_checkpoint(saved.parent, RUN) == Found(path=saved, step=3, skipped=())


def test_nothing_to_find(tmp_path):
    assert find_checkpoint(tmp_path, RUN) == Found(path=None, step=0, skipped=())
    assert find_checkpoint(tmp_path / "absent", RUN) == Found(path=None, step=0, skipped=())


def test_steps_are_numbers_not_words(tmp_path):
    save(tmp_path, 9, 10, 100)
    assert find_checkpoint(tmp_path, RUN).step == 100


@pytest.mark.parametrize("name", ["model.bin", "adapter/config.json"])
def test_a_flipped_byte_in_any_file_is_skipped_and_named(tmp_path, name):
    older = save(tmp_path, 1)
    newer = save(tmp_path, 2)
    flip(newer / name)
    why = f"the content of {name} does not have the hash it was written with"
    assert find_checkpoint(tmp_path, RUN) == Found(path=older, step=1, skipped=((newer, why),))


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_noticed(tmp_path):
    older, newer = save(tmp_path, 1), save(tmp_path, 2)
    manifest = newer / "manifest.json"
    whole = manifest.read_bytes()
    for at in range(len(whole)):
        manifest.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 7)]) + whole[at + 1 :])
        found = find_checkpoint(tmp_path, RUN)
        assert found.path == older
        assert found.skipped[0][1] in ("manifest.json cannot be read", "manifest.json was changed after it was written")
    manifest.write_bytes(whole)
    assert find_checkpoint(tmp_path, RUN).path == newer


def test_a_hash_sees_every_piece_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 300)
    saved = save(tmp_path, 1)
    for at in (0, 299, 300, 599, 999):
        flip(saved / "model.bin", at)
        assert find_checkpoint(tmp_path, RUN).path is None
        flip(saved / "model.bin", at)
    assert find_checkpoint(tmp_path, RUN).path == saved


def test_short_missing_and_unreadable_are_skipped_newest_first(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    at = {step: tmp_path / f"checkpoint-{step}" for step in range(1, 6)}
    with (at[5] / "model.bin").open("r+b") as file:
        file.truncate(999)
    (at[4] / "adapter" / "config.json").unlink()
    (at[3] / "manifest.json").unlink()
    (at[2] / "manifest.json").write_text("{")
    assert find_checkpoint(tmp_path, RUN) == Found(
        path=at[1],
        step=1,
        skipped=(
            (at[5], "model.bin has 999 bytes instead of 1,000"),
            (at[4], "adapter/config.json is missing"),
            (at[3], "manifest.json is missing"),
            (at[2], "manifest.json cannot be read"),
        ),
    )


def test_a_copied_or_newer_manifest_is_not_trusted(tmp_path):
    one, two = save(tmp_path, 1), save(tmp_path, 2)
    (two / "manifest.json").write_bytes((one / "manifest.json").read_bytes())
    body = json.loads((one / "manifest.json").read_text())
    del body["sha256"]
    (one / "manifest.json").write_text(files._manifest_text({**body, "format": 2}))
    assert find_checkpoint(tmp_path, RUN).skipped == (
        (two, "manifest.json is that of step 1"),
        (one, "manifest.json has format 2, and this version reads format 1"),
    )


def test_another_runs_checkpoint_is_refused_by_what_differs(tmp_path):
    saved = save(tmp_path, 4)
    other = {"model": "Llama 2", "config": "abc", "rows": "5"}
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path, other)
    assert str(error.value) == (
        f"{saved} belongs to another run (data is 'rows 7' there and absent here, model is 'Llama 1' there and 'Llama 2' here, "
        "rows is absent there and '5' here); give this run another output_dir, or set overwrite_output_dir to start over."
    )


def test_long_identities_are_shown_where_they_differ(tmp_path):
    saved = save_checkpoint(tmp_path, 1, content(), identity={"data": "x" * 100 + "A" + "y" * 100})
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path, {"data": "x" * 100 + "B" + "y" * 100})
    there, here = (f"…{'x' * 10}{letter}{'y' * 49}…" for letter in "AB")
    assert f"{saved} belongs to another run (data is '{there}' there and '{here}' here); " in str(error.value)


def test_another_runs_checkpoint_is_refused_even_when_a_damaged_one_is_newer(tmp_path):
    save_checkpoint(tmp_path, 1, content(), identity={**RUN, "data": "rows 8"})
    flip(save(tmp_path, 2) / "model.bin")
    with pytest.raises(CheckpointError, match="data is 'rows 8' there and 'rows 7' here"):
        find_checkpoint(tmp_path, RUN)


def test_a_named_checkpoint_is_taken_or_refused_never_replaced(tmp_path):
    save(tmp_path, 1, 2, 3)
    two = tmp_path / "checkpoint-2"
    assert find_checkpoint(tmp_path, RUN, path=two) == Found(path=two, step=2, skipped=())
    moved = two.rename(tmp_path / "the-good-one")
    assert find_checkpoint(tmp_path, RUN, path=moved) == Found(path=moved, step=2, skipped=())
    flip(moved / "model.bin")
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path, RUN, path=moved)
    assert str(error.value) == (
        f"{moved} cannot be resumed from: the content of model.bin does not have the hash it was written with; "
        "name another checkpoint, or none to take the newest valid one."
    )
    with pytest.raises(CheckpointError, match="checkpoint-7 cannot be resumed from: manifest.json is missing;"):
        find_checkpoint(tmp_path, RUN, path=tmp_path / "checkpoint-7")


def test_the_limit_deletes_the_oldest(tmp_path):
    save(tmp_path, 8, 9, 10, 11, save_total_limit=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]


def test_the_limit_spares_the_best_and_the_last(tmp_path):
    best = save(tmp_path, 1)
    save(tmp_path, 2, 3, 4, save_total_limit=2, keep=best)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-4"]
    save(tmp_path, 5, save_total_limit=1, keep=best)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-5"]
    save(tmp_path, 3, save_total_limit=1)
    assert names(tmp_path) == ["checkpoint-3"]


def test_the_limit_counts_valid_checkpoints_of_this_run_only(tmp_path):
    save(tmp_path, 1, 2, 3)
    (tmp_path / "checkpoint-3" / "model.bin").write_bytes(b"cut")
    save_checkpoint(tmp_path, 4, content(), identity={**RUN, "data": "other"})
    (tmp_path / "checkpoint-notes").mkdir()
    save(tmp_path, 5, save_total_limit=2)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3", "checkpoint-4", "checkpoint-5", "checkpoint-notes"]


def test_a_limit_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError) as error:
        save(tmp_path, 1, save_total_limit=0)
    assert str(error.value) == "save_total_limit is 0; give at least 1, or none to keep every checkpoint."


def test_the_same_step_again_replaces_it(tmp_path):
    saved = save(tmp_path, 1)
    flip(saved / "model.bin")
    (saved / "notes.txt").write_text("old")
    assert save(tmp_path, 1) == saved
    assert names(saved) == ["adapter", "manifest.json", "model.bin"]
    assert find_checkpoint(tmp_path, RUN) == Found(path=saved, step=1, skipped=())


def test_an_error_while_writing_leaves_no_trace(tmp_path):
    save(tmp_path, 1)

    def write(folder):
        content()(folder)
        raise RuntimeError("no such tensor")

    with pytest.raises(RuntimeError, match="^no such tensor$"):
        save_checkpoint(tmp_path, 2, write, identity=RUN)
    assert names(tmp_path) == ["checkpoint-1"]


def test_what_dead_processes_left_is_cleaned_and_what_living_ones_write_is_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f"tmp-checkpoint-5-{dead.pid}", f"tmp-checkpoint-6-{os.getpid()}", "tmp-checkpoint-7-1", "tmp-checkpoint-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("half")
    assert {path.name for path in clean(tmp_path)} == {f"tmp-checkpoint-5-{dead.pid}", f"tmp-checkpoint-6-{os.getpid()}"}
    assert names(tmp_path) == ["tmp-checkpoint-7-1", "tmp-checkpoint-mine"]


def test_a_death_while_replacing_loses_neither_old_nor_new(tmp_path):
    saved = save(tmp_path, 1)
    saved.rename(tmp_path / "replaced-checkpoint-1")
    assert clean(tmp_path) == ()
    assert find_checkpoint(tmp_path, RUN).path == saved
    saved.rename(tmp_path / "replaced-checkpoint-1")
    save(tmp_path / "aside", 1).rename(saved)
    assert clean(tmp_path) == (tmp_path / "replaced-checkpoint-1",)
    assert find_checkpoint(tmp_path, RUN) == Found(path=saved, step=1, skipped=())


@pytest.fixture
def small_disk(tmp_path):
    """1 MB, really full; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk; the file size limit and the raised errno are tested below")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk(small_disk):
    older = save_checkpoint(small_disk, 1, content(size=600_000), identity=RUN)
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(small_disk, 2, content(size=600_000), identity=RUN)
    free = os.statvfs(small_disk)
    assert str(error.value) == (
        f"{small_disk}/checkpoint-2 was not saved because the disk is full: it needs about 600.0 kB "
        f"and {free.f_bavail * free.f_frsize / 1000:.1f} kB are free; free some space or name another output_dir, "
        "and resume from the checkpoints before it, which are untouched."
    )
    assert names(small_disk) == ["checkpoint-1"]
    assert find_checkpoint(small_disk, RUN) == Found(path=older, step=1, skipped=())


def test_a_file_size_limit(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(CheckpointError) as error:
            save_checkpoint(tmp_path, 2, content(size=20_000), identity=RUN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(error.value).startswith(
        f"{tmp_path}/checkpoint-2 was not saved because the disk or `ulimit -f` refuses a file this large: it needs more than 10.0 kB and "
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
    ],
)
def test_a_full_disk_however_a_library_puts_it(tmp_path, raised, why):
    def write(folder):
        try:
            raise raised
        except Exception as error:
            raise RuntimeError("unexpected pos 576 vs 534") from error

    with pytest.raises(CheckpointError, match=f"^{tmp_path}/checkpoint-2 was not saved because {why}: it needs more than 0 bytes and"):
        save_checkpoint(tmp_path, 2, write, identity=RUN)


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.EACCES, "the folder may not be written to; change its permissions"),
        (errno.EROFS, "the file system is read-only; make it writable"),
    ],
)
def test_a_folder_that_may_not_be_written_to(tmp_path, number, why):
    def write(folder):
        raise OSError(number, "")

    sentence = (
        rf"^{tmp_path}/checkpoint-2 was not saved because {why} or name another output_dir, and resume from the checkpoints before it"
    )
    with pytest.raises(CheckpointError, match=sentence):
        save_checkpoint(tmp_path, 2, write, identity=RUN)


def test_checkpoints_that_cannot_be_deleted(tmp_path, monkeypatch):
    def forbidden(folder):
        raise PermissionError(errno.EACCES, "Permission denied")

    save_checkpoint(tmp_path, 1, lambda folder: None, identity=RUN)
    sentence = rf"^{tmp_path}/checkpoint-2 was saved, but older checkpoints cannot be deleted \(Permission denied\); see who may write to"
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", forbidden)
        with pytest.raises(CheckpointError, match=sentence):
            save_checkpoint(tmp_path, 2, lambda folder: None, identity=RUN, save_total_limit=1)
    assert find_checkpoint(tmp_path, RUN).step == 2


def test_other_errors_of_the_system_pass_unchanged(tmp_path):
    def write(folder):
        raise InterruptedError(errno.EINTR, "Interrupted system call")

    with pytest.raises(InterruptedError):
        save_checkpoint(tmp_path, 2, write, identity=RUN)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_614_000_000, "1.6 GB"), (10**13, "10000.0 GB")]
)
def test_sizes(count, text):
    assert files._size(count) == text
