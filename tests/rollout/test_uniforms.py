"""The uniform numbers: fixed by their definition, never 0 or 1, uniform, and without a trace of each other."""

from hashlib import blake2b

import numpy as np

from burnish.rollout.uniforms import row_key, uniforms

MASK = 2**64 - 1


def by_hand(seed, prompt_id, sample, position):
    """The same with Python's integers, step for step as SplitMix64's authors write it."""
    state = int.from_bytes(blake2b(f"{seed}\0{prompt_id}\0{sample}".encode(), digest_size=8).digest(), "little")
    for _ in range(position + 1):
        state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    z ^= z >> 31
    return ((z >> 12) + 0.5) / 2**52


def test_splitmix64_is_the_one_known():
    """The first outputs of SplitMix64 from the state 0, as its reference implementation prints them: e220a8397b1dcdaf, 6e789e6aa1b965f4."""
    found = uniforms([0, 0], [0, 1])
    assert found.tolist() == [((z >> 12) + 0.5) / 2**52 for z in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)]


def test_by_hand():
    names = [(0, "0:train:17", 0), (0, "0:train:17", 1), (3, "é", 2)]
    keys = [row_key(*name) for name in names]
    for position in (0, 1, 7, 300):
        assert uniforms(keys, [position] * 3).tolist() == [by_hand(*name, position) for name in names]


def test_recorded():
    """Of later versions too: a change of these numbers changes every sampled completion."""
    key = row_key(0, "0:train:17", 3)
    assert key == 15006333774097097828
    assert uniforms([key] * 3, [0, 1, 2]).tolist() == [0.10312859903260818, 0.5848956518244312, 0.5129258350179787]


def test_never_0_or_1():
    """The smallest and the largest there can be: all 52 bits 0, or all 1."""
    smallest, largest = (0 + 0.5) * 2.0**-52, (2**52 - 1 + 0.5) * 2.0**-52
    assert (smallest, largest) == (2.0**-53, 1 - 2.0**-53)
    assert 0 < smallest < largest < 1


def test_uniform_and_unrelated():
    """Of 1,000,000 numbers in 1,000 cells: chi-square has mean 999 and standard deviation sqrt(2 * 999) = 44.7. Neighbours in position,
    in sample and in seed have a correlation of 0 ± 0.001."""
    rows, positions = 1000, 1000
    keys = np.array([row_key(5, "p", sample) for sample in range(rows)], dtype=np.uint64)
    u = np.stack([uniforms(keys, np.full(rows, position)) for position in range(positions)], 1)
    counts = np.histogram(u, bins=1000, range=(0, 1))[0]
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert abs(chi_square - 999) < 4 * 44.7
    for some, others in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1])):
        assert abs(np.corrcoef(some.ravel(), others.ravel())[0, 1]) < 0.004
