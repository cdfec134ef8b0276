"""Which of how many processes this is, by the environment: torchrun's, accelerate's and `burnish --devices`'s words, or Slurm's."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from burnish.config.values import ConfigError

SLURM_PORTS = range(12000, 32000)
"""One of these by the number of the job: below the ports that systems hand out themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    """Processes on this machine."""
    master_addr: str = "127.0.0.1"
    """The machine of rank 0, as the others reach it."""
    master_port: int = 29500

    @property
    def environment(self) -> dict[str, str]:
        """In torchrun's words."""
        return {name: str(value) for name, value in zip(NAMES, self._values, strict=True)}

    @property
    def _values(self) -> tuple[int | str, ...]:
        return self.rank, self.world_size, self.local_rank, self.local_world_size, self.master_addr, self.master_port


NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def processes(environment: Mapping[str, str] = os.environ) -> Processes:
    """Reads torchrun's names; else, in a task that srun started, Slurm's; else this process is alone.

    A batch script has Slurm's names, too, and `SLURM_NTASKS` may be above 1 in it; but it is one process.

    Raises ConfigError for what is no number, and for engines of accelerate's that it would start for its own trainer only.
    """
    for engine, instead in (("FSDP", "give --fsdp"), ("DEEPSPEED", "give --fsdp, which shards as it does")):
        if environment.get(f"ACCELERATE_USE_{engine}") == "true":
            raise ConfigError(f"accelerate's configuration asks for {engine}, which would have no effect; {instead}, and launch without.")
    if "WORLD_SIZE" in environment:
        world = _number(environment, "WORLD_SIZE", 1)
        return Processes(
            rank=_number(environment, "RANK", 0),
            world_size=world,
            local_rank=_number(environment, "LOCAL_RANK", 0),
            local_world_size=_number(environment, "LOCAL_WORLD_SIZE", world),
            master_addr=environment.get("MASTER_ADDR", "127.0.0.1"),
            master_port=_number(environment, "MASTER_PORT", 29500),
        )
    by_srun = "SLURM_PROCID" in environment and ("SLURM_STEP_ID" in environment or "SLURM_JOB_ID" not in environment)
    return _slurm(environment) if by_srun else Processes()


def _slurm(environment: Mapping[str, str]) -> Processes:
    world = _number(environment, "SLURM_STEP_NUM_TASKS", _number(environment, "SLURM_NTASKS", 1))
    hosts = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
    job = _number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID", 0)
    return Processes(
        rank=_number(environment, "SLURM_PROCID", 0),
        world_size=world,
        local_rank=_number(environment, "SLURM_LOCALID", 0),
        local_world_size=_tasks_here(environment, world),
        master_addr=environment.get("MASTER_ADDR", first_host(hosts)),
        master_port=_number(environment, "MASTER_PORT", SLURM_PORTS[job % len(SLURM_PORTS)]),
    )


def first_host(nodes: str) -> str:
    """Of a list as Slurm writes it: "gpu[03-05,11]-ib,cpu1" begins with gpu03-ib."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if found is None:
        raise ConfigError(f"SLURM_NODELIST={nodes!r} names no machine; set MASTER_ADDR to the machine of rank 0.")
    return "".join(filter(None, found.groups()))


def _tasks_here(environment: Mapping[str, str], world: int) -> int:
    """`SLURM_STEP_TASKS_PER_NODE` is "4(x2),1": four tasks on each of two nodes, and one on the next."""
    per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", str(world)))
    counts = [int(count) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", per_node) for _ in range(int(times or 1))]
    node = _number(environment, "SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else world


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name}={text!r} in the environment must be a number; unset it, or start the processes with torchrun.")
    return int(text)
