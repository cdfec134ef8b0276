"""One of several processes that train, or continue what another number of processes began.

python -m tests.laws.other_ranks FOLDER, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set. Every run under
FOLDER/<WORLD_SIZE> is continued; where there is none, each case is trained from its start into FOLDER/<WORLD_SIZE>.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from burnish.distributed.launch import gather, launch
from tests.laws.continued import build
from tests.laws.methods import CASES
from tests.laws.two_processes import trains

WAYS = {1: "no", 2: "full_shard", 4: "hybrid_shard"}
"""Number of processes → how they shard; the four are two machines."""


def train(ranks: int, case: str, folder: Path) -> None:
    method = next(one for one in CASES if one.name == case)
    options = {"fsdp": WAYS[ranks], "save_steps": 1, "logging_steps": 1, "disable_dropout": True}
    build(method, "adamw", folder, **options).train()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    here = launch()
    mine = folder / str(here.world_size)
    names = (
        sorted(path.name for path in mine.iterdir()) if mine.exists() else [c.name for c in CASES if "ranks" not in c.exempt and trains(c)]
    )
    gather(None, here)  # nobody makes a folder before all have looked
    for name in names:
        train(here.world_size, name.partition(" ")[0], mine / name)
    gather(None, here)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
