"""Who this process is, by the environment."""

import pytest

from burnish.config.processes import Processes, first_host, processes
from burnish.config.values import ConfigError

SRUN = {"SLURM_JOB_ID": "100", "SLURM_STEP_ID": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "7"}


def test_alone():
    assert processes({}) == Processes() == Processes(rank=0, world_size=1, local_rank=0, local_world_size=1)


def test_torchrun_and_its_words_again():
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "one", "MASTER_PORT": "77"}
    found = processes(said | SRUN)  # torchrun within a Slurm job
    assert found == Processes(rank=3, world_size=4, local_rank=1, local_world_size=2, master_addr="one", master_port=77)
    assert found.environment == said


def test_srun():
    found = processes(SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4,3", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_NODELIST": "gpu[01-08]"})
    assert found == Processes(rank=5, world_size=7, local_rank=1, local_world_size=3, master_addr="gpu07", master_port=12102)


def test_of_srun_the_four_names_are_enough():
    found = processes({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_NODELIST": "localhost"})
    assert found == Processes(rank=1, world_size=2, local_rank=1, local_world_size=2, master_addr="localhost", master_port=12000)


def test_a_batch_script_is_one_process_though_it_speaks_of_several():
    script = {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"}
    assert processes(script) == Processes()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[03-05,11]", "gpu03"),
        ("gpu[3]", "gpu3"),
        ("rack-2-gpu[03-05]-ib,cpu1", "rack-2-gpu03-ib"),
        ("a,b[1-2]", "a"),
    ],
)
def test_first_host(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED"])
def test_what_accelerate_is_configured_to_do_by_itself_is_refused(engine):
    with pytest.raises(ConfigError, match=f"^accelerate's configuration asks for {engine}, which would have no effect; give --fsdp"):
        processes({"WORLD_SIZE": "2", f"ACCELERATE_USE_{engine}": "true"})


def test_what_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE='two' in the environment must be a number; unset it, or start .* with torchrun\.$"):
        processes({"WORLD_SIZE": "two"})
