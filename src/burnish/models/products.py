"""Which of PyTorch's two libraries multiplies float32 matrices on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def onednn_is_exact() -> bool:
    """Whether oneDNN, allowed to round products of float32 to bfloat16, has nothing to gain from it, and computes them in float32.

    It has on processors with tiles (AMX, AVX10.2) and on those that are not x86; of the others only those with AVX-512 are asked at all.
    """
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bw") and has.get("avx512_vl") and not has.get("amx_tile") and not has.get("avx10_2"))


@contextmanager
def float32_products() -> Iterator[None]:
    """Inside, oneDNN multiplies, where it does so in float32; that is faster, above all on several cores (docs/benchmarks.md).

    PyTorch has one switch for the process, and takes oneDNN only where it may round, so it is put back as it was. Works as a decorator too.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if before == "none" and onednn_is_exact():
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
