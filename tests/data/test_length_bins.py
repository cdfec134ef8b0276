"""Lengths as data.json has them."""

import numpy as np
import pytest

from burnish.data.dataset import length_bins


@pytest.mark.parametrize(
    ("lengths", "most", "bins"),
    [
        ([3, 4, 12], 5, [(0, 4, 2), (5, 9, 0), (10, 14, 1)]),
        ([7], 20, [(7, 7, 1)]),
        ([30, 39, 40, 1000], 20, [(0, 99, 3), *[(100 * i, 100 * i + 99, 0) for i in range(1, 10)], (1000, 1099, 1)]),
        ([55, 58, 59], 20, [(55, 59, 3)]),
        ([], 20, []),
    ],
)
def test_bins(lengths, most, bins):
    """3, 4 and 12 in at most 5: 1 and 2 are too narrow, 12 // 2 being 6; of width 5 there are three. 1000 // 50 is 20: too many by one."""
    assert length_bins(np.array(lengths, dtype=np.int64), most) == bins
    assert sum(n for _, _, n in bins) == len(lengths)
