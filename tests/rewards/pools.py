"""Pools with functions of a few lines, and whether what they started still runs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import numpy as np

from burnish.rewards.contract import RewardFunc, reward_func
from burnish.rewards.pool import GroupRewards, RewardPool
from burnish.rewards.samples import Sample

DEADLINE = 20.0  # seconds, of what takes one


def samples(*texts: str, **columns) -> list[Sample]:
    return [
        Sample(prompt="p", completion=text, completion_ids=np.arange(len(text)), finish_reason="stop", columns=columns) for text in texts
    ]


def made(*functions, workers: int = 2, timeout: float = 10.0, memory_mib: int | None = None) -> RewardPool:
    funcs = [f if isinstance(f, RewardFunc) else reward_func(f) for f in functions]
    return RewardPool(funcs, workers=workers, timeout=timeout, memory_mib=memory_mib)


def score(*functions, of=("a", "bb"), step: int = 0, **options) -> GroupRewards:
    with made(*functions, **options) as pool:
        return pool.submit(samples(*of), step).result(DEADLINE)


def alive(pid: int) -> bool:
    """Whether it runs: no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def by_length(sample):
    return len(sample.text)


def looping(sample):
    while True:
        pass


def pids_of(tmp_path, function):
    """Submits a call that writes down its process, and a child that has left its group, and then takes for ever."""
    path = tmp_path / "pids"

    def stays(sample):
        child = subprocess.Popen(["sleep", "100"], start_new_session=True)
        inside = subprocess.Popen(["sleep", "100"])
        path.with_suffix(".new").write_text(f"{os.getpid()} {child.pid} {inside.pid}")
        path.with_suffix(".new").rename(path)
        return function(sample)

    return path, stays


def read(path: Path) -> list[int]:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return list(map(int, path.read_text().split()))
