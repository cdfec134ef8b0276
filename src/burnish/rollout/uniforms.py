"""One uniform number for each sampled token, which depends on nothing but its name.

A row's key is the first eight bytes (little-endian) of BLAKE2b over ``"{seed}\\0{prompt_id}\\0{sample}"`` in UTF-8. The number of
position i is the (i + 1)-th output of SplitMix64 (Steele, Lea & Flood 2014) from that key: its upper 52 bits and half a unit, in units
of 2⁻⁵². So it is at least 2⁻⁵³ and at most 1 - 2⁻⁵³, and the same in every version of every library.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def row_key(seed: int, prompt_id: str, sample: int) -> int:
    """The key of one completion, of 64 bits."""
    return int.from_bytes(blake2b(f"{seed}\0{prompt_id}\0{sample}".encode(), digest_size=8).digest(), "little")


def uniforms(key_R: np.ndarray | Sequence[int], position_R: np.ndarray | Sequence[int]) -> np.ndarray:
    """float64 `[R]`, above 0 and below 1: of each row's key and position (its count of tokens sampled before, at least 0)."""
    z = np.asarray(key_R, dtype=np.uint64) + (np.asarray(position_R).astype(np.uint64) + np.uint64(1)) * GOLDEN
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
