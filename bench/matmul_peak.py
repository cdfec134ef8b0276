"""The most float32 multiplications and additions that a dense matrix product does here in a second of all its threads, as JSON.

    python bench/matmul_peak.py THREADS

PyTorch can hand a float32 product to one of two libraries, and on some processors one is twice as fast as the other. oneDNN's
counts as long as its result is exact to float32 rounding: a product in a shorter format is not a float32 one. Processor time is
read and not the wall clock, so that a busy machine does not look like a slow one.
"""

from __future__ import annotations

import json
import sys
import time

import torch

SIDES = (2048, 3072, 4096)
REPEATS = 3
FLOAT32_ERROR = 2e-6


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    found = {"default": fastest()}
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    if relative_error() < FLOAT32_ERROR:
        found["onednn"] = fastest()
    print(json.dumps(found))


def fastest() -> float:
    best = 0.0
    for side in SIDES:
        left, right = torch.randn(side, side), torch.randn(side, side)
        left @ right
        for _ in range(REPEATS):
            start = time.process_time()
            left @ right
            best = max(best, 2 * side**3 * torch.get_num_threads() / (time.process_time() - start))
    return best


def relative_error() -> float:
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    exact = left.double() @ right.double()
    return float((left @ right - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()
