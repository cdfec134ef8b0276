"""`torchrun --nproc_per_node 2 -m burnish sft …` on one machine, over gloo: the same training as by one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from burnish.cli.main import main
from tests.tiny import chats, save_tiny_model, write_rows
from tests.torture.runs import check_same, lines, newest, result

ROOT = Path(__file__).parents[1]
STEPS = 30
DEADLINE = 180  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    save_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", chats(40))
    return folder


def arguments(folder, run):
    options = {
        "model_name_or_path": folder / "model", "dataset_name": folder / "rows.jsonl", "test_split_size": 8, "output_dir": run,
        "batch_size": 5, "max_steps": STEPS, "max_tokens_per_microbatch": 64, "compute_dtype": "float32", "learning_rate": 2e-3,
        "logging_steps": 3, "save_steps": 2, "save_total_limit": 2, "eval_strategy": "steps", "eval_steps": 10,
    }  # fmt: skip
    return ["sft", *(word for name, value in options.items() for word in (f"--{name}", str(value))), "--assistant_only_loss"]


def launched(program, folder, run, *, cache):
    """torchrun with two processes, in a session of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *program, *arguments(folder, run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BURNISH_CACHE": str(cache), "BURNISH_COUNTED": str(cache.with_suffix(".txt"))}
    with run.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def kill(process):
    """torchrun and its workers, which are in sessions of their own and would train on without it."""
    if process.poll() is not None:
        return
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, workers)):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def finished(process, run):
    try:
        code = process.wait(DEADLINE)
    finally:
        kill(process)
    assert code == 0, run.with_suffix(".log").read_text()[-3000:]
    return run.with_suffix(".log").read_text()


@pytest.fixture(scope="module")
def whole(folder):
    """Trained by two processes that nothing disturbed."""
    run = folder / "whole"
    said = finished(launched(["-m", "burnish"], folder, run, cache=folder / "cache"), run)
    return run, said


def test_two_processes_train_as_one(folder, whole, monkeypatch):
    monkeypatch.setenv("BURNISH_CACHE", str(folder / "cache"))
    assert main(arguments(folder, folder / "alone")) == 0
    ours, alone = lines(whole[0]), lines(folder / "alone")
    assert len(ours) == len(alone) == STEPS // 3 + STEPS // 10
    for line, other in zip(ours, alone, strict=True):
        assert line == pytest.approx(other, rel=1e-5, abs=1e-7)
    theirs = load_file(folder / "alone" / "model.safetensors")
    for name, tensor in load_file(whole[0] / "model.safetensors").items():
        assert float((tensor - theirs[name]).abs().max()) <= 1e-5, name


def test_what_two_processes_say_is_said_once(whole):
    run, said = whole
    assert said.count(f"The model is in {run}; read back with transformers, its logits differ by 0.\n") == 1
    assert said.count("step 3/30  loss") == 1
    assert "Traceback" not in said
    assert [line["step"] for line in lines(run)] == [3, 6, 9, 10, 12, 15, 18, 20, 21, 24, 27, 30, 30]


def test_two_processes_that_are_killed_continue_to_the_bit_and_prepare_the_rows_once(folder, whole):
    run, cache = folder / "broken", folder / "cache-of-its-own"
    counted = [str(ROOT / "tests" / "counted.py")]
    process, deadline = launched(counted, folder, run, cache=cache), time.monotonic() + DEADLINE
    while newest(run) < 4:
        assert process.poll() is None, run.with_suffix(".log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill(process)
    with FileLock(run / ".lock", timeout=10):  # free when the worker that held it is gone
        before = newest(run)
    assert before < STEPS
    said = finished(launched(counted, folder, run, cache=cache), run)
    assert said.count(f"Continuing from {run}/checkpoint-{before}, step {before} of {STEPS}.\n") == 1
    check_same(result(run), result(whole[0]))
    prepared = cache.with_suffix(".txt").read_text()
    assert prepared == "prepared\n" * 2  # the training rows and those held out, by one process each
