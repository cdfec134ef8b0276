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
from tests.laws.exact import distance
from tests.laws.methods import cases
from tests.laws.two_processes import RANKS, SITUATIONS, outcomes

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.xdist_group("ranks")]
ROOT = Path(__file__).parents[2]
DEADLINE = 240  # seconds


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """(case, situation) → outcomes, of each rank. All situations are run by the same two processes."""
    output = tmp_path_factory.mktemp("ranks")
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


@cases("ranks")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_two_are_one(ranks, case, situation):
    alone = outcomes(case, situation, Launch())
    for found in ranks:
        for theirs, ours in zip(found[case.name, situation], alone, strict=True):
            assert distance(theirs.gradient, ours.gradient) <= 1e-10
            assert distance(theirs.weights, ours.weights) <= 1e-10
            assert theirs.metrics == pytest.approx(ours.metrics, rel=1e-9, abs=1e-12)


@cases("ranks")
def test_the_situations_are_what_they_say(ranks, case):
    """Several micro-batches on each rank; one; and a rank with nothing to do."""
    for found in ranks:
        assert found[case.name, "uneven"][0].micro_batches > 1
        assert found[case.name, "one micro-batch"][0].micro_batches == 1
        assert found[case.name, "fewer examples than ranks"][0].micro_batches == 1


@cases("ranks")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_ranks_stay_alike_to_the_bit(ranks, case, situation):
    first, second = (found[case.name, situation][-1] for found in ranks)
    assert all(torch.equal(first.weights[n], second.weights[n]) for n in first.weights)
    assert first.metrics == second.metrics
