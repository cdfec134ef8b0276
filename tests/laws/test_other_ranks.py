"""A run continued by another number of processes: the same next examples, and the same losses up to rounding."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.checkpoint.files import checkpoints
from tests.laws.continued import STEPS, cut_short, lines
from tests.laws.methods import CASES, cases
from tests.laws.other_ranks import train
from tests.laws.test_ranks import ROOT, free_port
from tests.laws.two_processes import trains

STOP = 3
CHANGES = [(2, 1), (1, 2), (2, 4)]
DEADLINE = 600  # seconds


def start(ranks: int, folder: Path) -> list[subprocess.Popen]:
    shared = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank % 2), "LOCAL_WORLD_SIZE": "2"}
        with (folder / f"{ranks}-{rank}.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.laws.other_ranks", str(folder)]
            processes.append(subprocess.Popen(command, env=shared | own, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
    return processes


def end(processes: list[subprocess.Popen], folder: Path) -> None:
    try:
        codes = [process.wait(DEADLINE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(codes), "\n".join(log.read_text()[-2000:] for log in sorted(folder.glob("*.log")))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """begun/<ranks>/<case>: never stopped; <from> to <to>/<to>/<case>: stopped and continued by another number of ranks."""
    root = tmp_path_factory.mktemp("other-ranks")
    bound = [case.name for case in CASES if "ranks" not in case.exempt and trains(case)]
    (root / "begun").mkdir()
    two = start(2, root / "begun")
    for name in bound:
        train(1, name, root / "begun" / "1" / name)
    end(two, root / "begun")
    started = []
    for before, after in CHANGES:
        folder = root / f"{before} to {after}"
        for name in bound:
            (folder / str(after)).mkdir(parents=True, exist_ok=True)
            cut_short(root / "begun" / str(before) / name, STOP, folder / str(after) / name)
        if after > 1:
            started.append((start(after, folder), folder))
    for name in bound:
        train(1, name, root / "2 to 1" / "1" / name)
    for processes, folder in started:
        end(processes, folder)
    yield root
    shutil.rmtree(root)


@cases("ranks", "before", "after", of=lambda case: CHANGES if trains(case) else ())
def test_continued_by_another_number(runs, case, before, after):
    continued = runs / f"{before} to {after}" / str(after) / case.name
    written, wanted = lines(continued), lines(runs / "begun" / str(before) / case.name)
    steps = [line for line in wanted if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    tokens = [(line["num_tokens"], line["trained_share"]) for line in written if "loss" in line]
    assert tokens == [(line["num_tokens"], line["trained_share"]) for line in steps]  # the same examples in each step
    if "micro-batch" not in case.exempt:  # else the balance of each rank's share is part of the loss
        # a reward is a difference of log-probs of size 20, and float32 rounds these at 1e-6; completions are weighed by such differences
        fine = {"rel": 1e-4 if case.samples else 1e-6, "abs": 1e-5 if case.module == "dpo" or case.samples else 1e-6}
        assert written == [pytest.approx(line, **fine) for line in wanted]
        assert [line.get("loss") for line in written] == [
            pytest.approx(line["loss"], rel=1e-6, abs=1e-6 if case.samples else 1e-12) if "loss" in line else None for line in wanted
        ]
    assert checkpoints(continued)[-1].name == f"checkpoint-{STEPS}"


@cases("ranks")
def test_what_continues_says_so(runs, case):
    said = (runs / "2 to 4" / "4-0.log").read_text()
    assert "Written by 2 processes and continued by 4: the same examples; dropout draws other numbers.\n" in said
