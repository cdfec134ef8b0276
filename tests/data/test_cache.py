import logging
import os
import subprocess
import sys
import threading
import time

import filelock
import pytest

from burnish.data import cache as cache_module
from burnish.data.cache import default_cache_dir, load_or_build
from burnish.data.prepare_report import PrepareReport
from burnish.data.rows import DataError
from burnish.data.store import ColumnBuilder, StoreWriter


def build(path):
    builder = ColumnBuilder()
    builder.add(0, [], [[([1, 2, 3], 1, True)]], trained=2)
    with StoreWriter(path, "data") as writer:
        writer.append(builder.columns())
        writer.finish(PrepareReport(rows=1, kept=1, tokens=3, trained_tokens=2))


def test_the_second_of_two_waits_for_the_first_and_does_not_build(tmp_path, caplog):
    started = threading.Event()
    times = []

    def slowly(path):
        times.append(path)
        started.set()
        time.sleep(0.3)
        build(path)

    folder = tmp_path / "examples" / "k"
    first = threading.Thread(target=load_or_build, args=(folder, slowly), kwargs={"what": "data"})
    first.start()
    started.wait(10)
    with caplog.at_level(logging.WARNING):
        store = load_or_build(folder, slowly, what="data")
    first.join()
    assert (len(times), len(store)) == (1, 1)
    assert caplog.messages == [f"Another process prepares the rows of data; waiting for it to write {folder}."]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["k", "k.lock"]


def test_the_wait_has_a_deadline(tmp_path):
    folder = tmp_path / "k"
    with filelock.FileLock(tmp_path / "k.lock"), pytest.raises(DataError) as caught:
        load_or_build(folder, build, what="data", deadline_s=0.1)
    assert str(caught.value) == (
        f"Another process has held {tmp_path}/k.lock for 0 s while it prepares the rows of data; "
        "see whether it is alive, and delete the file if it is not."
    )


def test_what_a_killed_build_left_is_cleared_away(tmp_path):
    folder = tmp_path / "k"
    unfinished = tmp_path / "k.unfinished"
    unfinished.mkdir()
    (unfinished / "tokens").write_text("half")
    assert len(load_or_build(folder, build, what="data")) == 1
    assert not unfinished.exists()


def test_a_build_that_fails_leaves_nothing_and_can_be_tried_again(tmp_path):
    folder = tmp_path / "k"

    def full(path):
        path.mkdir()
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError) as caught:
        load_or_build(folder, full, what="data")
    assert str(caught.value) == (
        f"The prepared rows of data cannot be written to {folder} (No space left on device); "
        "make room there, or name another folder with dataset_cache_dir or BURNISH_CACHE."
    )
    assert [path.name for path in tmp_path.iterdir()] in ([], ["k.lock"])
    assert len(load_or_build(folder, build, what="data")) == 1


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("BURNISH_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_cache_dir()) == "/home/someone/.cache/burnish"
    assert cache_module.DEADLINE_S == 3600


PREPARES = """
import os, sys, time
from pathlib import Path
from burnish.data.prepare import prepare
from burnish.data.prepare_batch import BatchPreparer
from burnish.data.rows import ListRows
from tests.data.small_tokenizer import make_tokenizer

name, folder = sys.argv[1], Path(sys.argv[2])
tokenise = BatchPreparer.__call__

def counted(self, rows, first):
    with (folder / "tokenised").open("a") as log:
        log.write(f"{name} {len(rows)}\\n")
    if name == "killed":
        time.sleep(600)
    time.sleep(0.5)
    return tokenise(self, rows, first)

BatchPreparer.__call__ = counted
tokenizer = make_tokenizer()
(folder / f"{name} is ready").touch()
while not (folder / "go").exists():
    time.sleep(0.002)
store = prepare(ListRows([{"text": "the lazy dog"}] * 20, "data"), tokenizer, cache_dir=folder / "cache", num_proc=1)
print(len(store), store.fingerprint)
"""


def start(name, folder):
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PREPARES, name, str(folder)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


def test_of_two_processes_that_start_at_once_one_tokenises(tmp_path):
    processes = [start(name, tmp_path) for name in ("a", "b")]
    for name in ("a", "b"):
        wait_for(tmp_path / f"{name} is ready")
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert said[0][0].startswith("20 ")
    assert (tmp_path / "tokenised").read_text() in ("a 20\n", "b 20\n")
    waited = "Another process prepares the rows of data; waiting for it to write "
    assert sorted(waited in error for _, error in said) == [False, True]


def test_a_process_killed_at_work_blocks_nobody(tmp_path):
    (tmp_path / "go").touch()
    killed = start("killed", tmp_path)
    wait_for(tmp_path / "tokenised")
    other = start("other", tmp_path)
    wait_for(tmp_path / "other is ready")
    killed.kill()
    out, error = other.communicate(timeout=60)
    killed.communicate()
    assert (other.returncode, out[:3]) == (0, "20 "), error
    assert (tmp_path / "tokenised").read_text() == "killed 20\nother 20\n"
    assert [path.suffix for path in sorted((tmp_path / "cache" / "examples").iterdir())] == ["", ".lock"]
