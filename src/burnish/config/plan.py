"""Which hardware a run is planned for."""

import re
from typing import Literal

from burnish.config.base import Config, config, option
from burnish.config.values import ConfigError

UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "KI": 1024, "MI": 1024**2, "GI": 1024**3, "TI": 1024**4}


@config
class PlanConfig(Config):
    """Which hardware the run is planned for."""

    memory: str = option(help="Memory of one device: 80GB (10^9 bytes) or 24GiB (2^30).")
    devices: int = option(1, "Devices, over all machines.", at_least=1)
    devices_per_node: int = option(8, "Devices of one machine; the hybrid kinds of fsdp shard within it.", at_least=1)
    device_type: Literal["cuda", "cpu"] = option("cuda", "cuda: GPUs; cpu: each device is a process with so much memory.")
    json: bool = option(False, "Print one JSON object and nothing else.")

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise ConfigError(f"memory={self.memory!r} is no memory at all; give that of one device, such as 80GB.")
        super().__post_init__()

    @property
    def bytes(self) -> int:
        """`memory` as a number. Raises ConfigError for what is no size."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?|)B", self.memory.strip().upper())
        if found is None:
            raise ConfigError(f"memory must be a size with its unit, such as 80GB or 24GiB, not {self.memory!r}.")
        return int(float(found[1]) * UNITS[found[2]])
