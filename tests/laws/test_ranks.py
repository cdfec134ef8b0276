"""Law *ranks*: two gloo processes are one, in gradients, weights and every metric."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from burnish.distributed.launch import Launch
from tests.laws.continued import lines
from tests.laws.exact import distance
from tests.laws.methods import cases
from tests.laws.two_processes import RANKS, outcomes, situations, trained, trains

pytestmark = pytest.mark.usefixtures("float64")
ROOT = Path(__file__).parents[2]
DEADLINE = 600  # seconds


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(runs_folder):
    """(case, situation) → outcomes, of each rank. All situations are run by the same two processes."""
    output = runs_folder
    shared = {**os.environ, "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.laws.two_processes", str(output)]
    processes = []
    for rank in range(RANKS):
        with (output / f"{rank}.log").open("wb") as log:
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
    deadline = time.monotonic() + DEADLINE
    try:
        codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        codes = ["not done in time"]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(codes):
        pytest.fail(f"ranks ended with {codes}\n" + "\n".join((output / f"{rank}.log").read_text()[-3000:] for rank in range(RANKS)))
    return [torch.load(output / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


@cases("ranks", "situation", of=situations)
def test_two_are_one(ranks, case, situation):
    alone = outcomes(case, situation, Launch())
    for found in ranks:
        for theirs, ours in zip(found[case.name, situation], alone, strict=True):
            assert distance(theirs.gradient, ours.gradient) <= 1e-10
            assert distance(theirs.weights, ours.weights) <= 1e-10
            assert theirs.metrics == pytest.approx(ours.metrics, rel=1e-10, abs=1e-12)


@cases("ranks", "fsdp", of=lambda case: (False, True) if trains(case) else ())
def test_the_whole_trainer(ranks, runs_folder, tmp_path, case, fsdp):
    """From rows to the last checkpoint: the same weights up to float32's rounding, one metrics.jsonl with the same lines."""
    alone = trained(case, tmp_path / "alone")
    for found in ranks:
        theirs = found[case.name, "trained", fsdp]
        assert all(torch.allclose(theirs[n], alone[n], rtol=1e-4, atol=1e-5) for n in alone)
    written, wanted = lines(folder_of(runs_folder, case, fsdp)), lines(tmp_path / "alone")
    if "micro-batch" in case.exempt:  # here each rank's balance is its own
        written, wanted = ([{"step": line["step"]} for line in one] for one in (written, wanted))
    assert written == [pytest.approx(line, rel=1e-3, abs=1e-5) for line in wanted]


@cases("ranks", "fsdp", of=lambda case: (False, True) if trains(case) else ())
def test_stopped_is_never_stopped(ranks, runs_folder, case, fsdp):
    for found in ranks:
        whole, again = found[case.name, "trained", fsdp], found[case.name, "continued", fsdp]
        assert all(torch.equal(again[n], whole[n]) for n in whole)
    folder = folder_of(runs_folder, case, fsdp)
    assert lines(Path(f"{folder} continued")) == lines(folder)


def folder_of(runs, case, fsdp):
    return runs / ("fsdp" if fsdp else "ddp") / case.name


@cases("ranks")
def test_the_situations_are_what_they_say(ranks, case):
    """Several micro-batches on each rank; one; and a rank with nothing to do."""
    for found in ranks:
        assert found[case.name, "uneven"][0].micro_batches > 1
        assert found[case.name, "one micro-batch"][0].micro_batches == 1
        assert found[case.name, "fewer examples than ranks"][0].micro_batches == 1


@cases("ranks", "situation", of=situations)
def test_ranks_stay_alike_to_the_bit(ranks, case, situation):
    first, second = (found[case.name, situation][-1] for found in ranks)
    assert all(torch.equal(first.weights[n], second.weights[n]) for n in first.weights)
    assert first.metrics == second.metrics
