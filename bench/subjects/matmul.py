"""The most float32 multiplications and additions that a dense matrix product does here in a second of all its threads.

PyTorch can hand a float32 product to one of two libraries, and on some processors one is twice as fast as the other. oneDNN's
counts as long as its result is exact to float32 rounding: a product in a shorter format is not a float32 one. Processor time is
read and not the wall clock, so that a busy machine does not look like a slow one.

Specification: `{"threads": …, "sides": [2048, 3072], "repeats": 2}`.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from bench.subjects.inside import Answer, serve

FLOAT32_ERROR = 2e-6


def run(spec: dict[str, Any]) -> Answer:
    torch.set_num_threads(spec["threads"])
    found = {"default": [fastest(spec["sides"], spec["repeats"])]}
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    if relative_error() < FLOAT32_ERROR:
        found["onednn"] = [fastest(spec["sides"], spec["repeats"])]
    return {"measures": found, "facts": {}}


def fastest(sides: list[int], repeats: int) -> float:
    best = 0.0
    for side in sides:
        left, right = torch.randn(side, side), torch.randn(side, side)
        left @ right
        for _ in range(repeats):
            start = time.process_time()
            left @ right
            best = max(best, 2 * side**3 * torch.get_num_threads() / (time.process_time() - start))
    return best


def relative_error() -> float:
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    exact = left.double() @ right.double()
    return float((left @ right - exact).norm() / exact.norm())


if __name__ == "__main__":
    serve(run)
