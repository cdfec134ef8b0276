"""Sampling from a policy that two processes hold a shard of each, with other requests on each."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.rollout.sampled import policy_of, sampler_of, tokens
from tests.rollout.two_processes import SAMPLING, SITUATIONS, asked, tree_of_few

ROOT = Path(__file__).parents[2]
DEADLINE = 300  # seconds


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    output = tmp_path_factory.mktemp("sharded")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.rollout.two_processes", str(output)]
    processes = []
    for rank in range(2):
        with (output / f"{rank}.log").open("wb") as log:
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(DEADLINE) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(codes):
        pytest.fail(f"ranks ended with {codes}\n" + "\n".join((output / f"{rank}.log").read_text()[-3000:] for rank in range(2)))
    return [torch.load(output / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_ranks_sample_what_one_process_would(ranks):
    """Whatever the other has to do; afterwards the weights are shards again, log-probs the trainer's, and training goes on."""
    policy = policy_of()
    wanted = [[tokens(sampler_of(policy).sample(part, SAMPLING)) for part in asked(rank)] for rank in range(2)]
    norm = train_alone(policy)
    for rank in range(2):
        assert len(ranks[rank]) == 2 * len(SITUATIONS)
        for i, (found, shards, gap, its_norm) in enumerate(ranks[rank]):
            assert found == wanted[rank][i % 2]
            assert shards == {"DTensor"}
            assert gap <= 1e-4
            assert its_norm == pytest.approx(norm, rel=1e-4)


def train_alone(policy):
    (-policy(tree_of_few()).logp_N.mean()).backward()
    return float(torch.nn.utils.clip_grad_norm_(list(policy.parameters()), 1.0))
