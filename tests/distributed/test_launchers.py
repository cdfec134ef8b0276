"""Whoever starts the processes, the run is the same: `--devices`, torchrun, accelerate, Slurm's srun."""

import sys
from contextlib import ExitStack

import pytest

from burnish.report.events import read_events
from tests.distributed.processes import free_port, make_task, sft, started

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def wanted(task):
    run = task / "devices"
    with started([sys.executable, "-m", "burnish", *sft(task, run, "--devices", "2", max_steps=3)], task / "devices.log") as process:
        ended = process.end()
    assert ended.status == 0, ended.output
    assert ended.output.count("The model is in") == 1
    return weights(run)


def weights(run):
    assert [one["world_size"] for one in read_events(run / "events.jsonl") if one["event"] == "start"] == [2]
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_launchers(launcher, task, wanted, tmp_path):
    with started([*launcher, "-m", "burnish", *sft(task, tmp_path / "run", max_steps=3)], tmp_path / "log") as process:
        ended = process.end()
    assert ended.status == 0, ended.output
    assert weights(tmp_path / "run") == wanted


def test_slurm(task, wanted, tmp_path):
    """srun starts one process per task, and says which it is; of who else there is, the first machine's name."""
    step = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NODELIST": "localhost"}
    step["MASTER_PORT"] = str(free_port())  # else it is made of the job's number
    ranks = [{**step, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
    with ExitStack() as stack:
        words = [sys.executable, "-m", "burnish", *sft(task, tmp_path / "run", max_steps=3)]
        tasks = [stack.enter_context(started(words, tmp_path / f"{one['SLURM_PROCID']}.log", **one)) for one in ranks]
        ended = [one.end() for one in tasks]
    assert [one.status for one in ended] == [0, 0], ended
    assert weights(tmp_path / "run") == wanted
