"""Ranks that behave, and ranks that do not. Run as a module it is one of them: python -m tests.distributed.ranks WHAT FOLDER."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

from burnish.distributed.launch import all_sum, barrier, gather, launch


def sums(here, folder):
    mine = {"loss": (0.1 * (here.rank + 1), 1.0), f"only {here.rank}": (1e300, 0.0)}
    found = [all_sum(mine, here) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    less = all_sum({"loss": (1.0, 2.0)} if here.main else {}, here)
    torch.save([found[0], less, gather(here.rank, here)], folder / f"{here.rank}.pt")


def raises(here, folder):
    barrier(here, "the start")  # so that rank 0 is in here, too
    if here.rank == 1:
        raise ArithmeticError("one and one is three")
    all_sum({}, here, "the counts of step 3")


def killed(here, folder):
    if here.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    all_sum({}, here, "the counts of step 3")


def first_killed(here, folder):
    if here.main:
        os.kill(os.getpid(), signal.SIGKILL)
    all_sum({}, here, "the counts of step 3")


def sleeps(here, folder):
    barrier(here, "the start")
    if here.rank == 1:
        time.sleep(600)
    all_sum({}, here, "the counts of step 3")


def leaves(here, folder):
    if here.rank == 1:
        sys.exit(0)
    all_sum({}, here, "the counts of step 3")


def apart(here, folder):
    """A callback ended the run on one rank alone."""
    all_sum({}, here, "the counts of step 4" if here.main else "the end of the training")


def refused(here, folder):
    """By all ranks, each on its own account."""
    raise ValueError(f"no such folder, says rank {here.rank}")


def main(what: str, folder: Path) -> None:
    torch.set_num_threads(1)
    launch(timeout=4 if what == "nobody" else 60)  # on a busy machine one starts seconds after the other
    here = launch(timeout=4, folder=folder / "stacks")
    globals()[what](here, folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
