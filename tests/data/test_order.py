import numpy as np
import pytest

from burnish.data.order import BLOCK, Order, count_sources, draw_sources, permutation, random_bits
from burnish.data.rows import DataError


def test_random_bits_are_those_of_philox_for_ever():
    """Written down once: a run resumed after an upgrade must see the same rows."""
    assert random_bits(2, 0).tolist() == [259491006799949737, 4754966410622352325]
    assert permutation(8, 0, 1, 0).tolist() == PERMUTATION


PERMUTATION = [4, 6, 3, 5, 2, 1, 0, 7]


def test_without_weights_every_row_once_in_each_epoch():
    order = Order([3, 5], seed=7)
    assert order.length == 8
    epochs = [order.indices(epoch) for epoch in range(4)]
    for ids in epochs:
        assert sorted(ids.tolist()) == list(range(8))
    assert len({tuple(ids.tolist()) for ids in epochs}) == 4


def test_without_shuffle_the_order_of_the_rows():
    assert Order([2, 3], seed=0, shuffle=False).indices(5).tolist() == [0, 1, 2, 3, 4]


def test_a_function_of_seed_and_epoch_alone():
    for weights in (None, [0.3, 0.7]):
        late = Order([30, 50], weights, seed=7).indices(3)
        walked = Order([30, 50], weights, seed=7)
        assert [walked.indices(epoch).tolist() for epoch in range(4)][3] == late.tolist()
        assert Order([30, 50], weights, seed=8).indices(3).tolist() != late.tolist()


def test_locate():
    source, row = Order([2, 3], seed=0).locate(np.array([0, 1, 2, 4]))
    assert (source.tolist(), row.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 2])


def test_weights_are_the_shares_of_the_draws():
    """Of 10,000 draws with share 0.75, 7,500 ± 4 × 43.3 (four standard deviations of a binomial) are of the first source."""
    order = Order([9_000, 1_000], [3, 1], seed=0)
    source, _ = order.locate(order.indices(0))
    assert abs((source == 0).sum() - 7_500) < 4 * 43.3


def test_each_source_is_walked_through_before_a_row_comes_again_and_on_across_epochs():
    order = Order([7, 4], [1, 1], seed=3)
    ids = np.concatenate([order.indices(epoch) for epoch in range(6)])
    source, row = order.locate(ids)
    for number, size in enumerate(order.sizes):
        walk = row[source == number]
        assert len(walk) > 3 * size
        laps = [walk[start : start + size].tolist() for start in range(0, len(walk) - size + 1, size)]
        assert all(sorted(lap) == list(range(size)) for lap in laps)
        assert len({tuple(lap) for lap in laps}) > 1


def test_a_walk_without_shuffle_wraps_around():
    order = Order([2, 100], [1, 1], seed=0, shuffle=False)
    source, row = order.locate(order.indices(0))
    assert row[source == 0].tolist()[:5] == [0, 1, 0, 1, 0]
    assert row[source == 1].tolist()[:3] == [0, 1, 2]


def test_draws_do_not_depend_on_where_they_begin():
    shares = np.array([0.2, 0.5, 0.3])
    whole = draw_sources(shares, 0, 0, BLOCK + 1000)
    assert draw_sources(shares, 0, BLOCK - 10, BLOCK + 10).tolist() == whole[BLOCK - 10 : BLOCK + 10].tolist()
    assert count_sources(shares, 0, BLOCK + 1000).tolist() == np.bincount(whole).tolist()
    assert count_sources(shares, 0, 0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, float("nan")]])
def test_bad_weights(weights):
    with pytest.raises(DataError, match=r"must be one positive number for each of the 2 sources\.$"):
        Order([1, 2], weights, seed=0)


def test_an_empty_source():
    with pytest.raises(DataError, match=r"^Every source needs at least one row, but their sizes are \[3, 0\]\.$"):
        Order([3, 0], seed=0)
