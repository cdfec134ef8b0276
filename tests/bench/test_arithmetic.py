"""The arithmetic of a bench, by hand."""

import math

import pytest
from bench.arithmetic import Spread, exponent, paired_ratios, spread, within


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0, count=3)
    assert spread([4.0, 1.0]).median == 2.5


def test_ratios_are_of_neighbours():
    """Round 2 ran more than twice as slow: 20 / 10 and 44 / 22 are both 2."""
    assert paired_ratios([[20.0], [44.0]], [[10.0], [22.0]]) == [2.0, 2.0]
    assert paired_ratios([[6.0, 8.0]], [[3.0, 2.0]]) == [2.0, 4.0]


def test_a_round_with_more_steps_on_one_side_is_refused():
    with pytest.raises(ValueError):
        paired_ratios([[1.0, 2.0]], [[1.0]])


def test_exponent():
    """y = 3 x²: log y = log 3 + 2 log x. And of 1, 2, 4 with 1, 2, 8: logs to base 2 are 0, 1, 2 and 0, 1, 3; the mean of x is 1, so the
    slope is (-1 · 0 + 0 · 1 + 1 · 3) / 2 = 1.5."""
    assert exponent([1, 2, 5], [3, 12, 75]) == pytest.approx(2.0)
    assert exponent([1, 2, 4], [1, 2, 8]) == pytest.approx(1.5)
    assert exponent([10, 100, 1000], [7, 7, 7]) == pytest.approx(0.0)


def test_what_is_not_above_0_has_no_exponent():
    for ys in ([1.0, 0.0], [1.0, -2.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="not all above 0"):
            exponent([1, 2], ys)


def at(median: float, half: float) -> Spread:
    return Spread(median=median, low=median - half, high=median + half, count=3)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (at(1.0, 0.1), at(1.15, 0.1), True),
        (at(1.0, 0.1), at(1.39, 0.1), True),  # 0.9 … 1.1 widened by 0.1 reaches 1.2, and the other 1.19
        (at(1.0, 0.1), at(1.41, 0.1), False),
        (at(1.0, 0.0), at(1.015, 0.0), True),  # a hundredth on either side of each
        (at(1.0, 0.0), at(1.03, 0.0), False),
    ],
)
def test_two_runs_say_the_same(first, second, same):
    assert within(first, second) is within(second, first) is same


def test_the_range_of_two_values_is_little():
    """1.0 … 1.1 widened by 0.3 reaches 1.4, and 1.8 … 1.9 begins at 1.5; 1.65 … 1.75 at 1.35."""
    two = [Spread(median=low + 0.05, low=low, high=low + 0.1, count=2) for low in (1.0, 1.8, 1.65)]
    assert not within(two[0], two[1])
    assert within(two[0], two[2])


def test_exponents_near_0_are_the_same():
    """Of a cost 2% apart is apart where the median is 0.01; an exponent of 0.01 and one of -0.03 are both 0."""
    assert not within(at(0.01, 0.0), at(-0.03, 0.0))
    assert within(at(0.01, 0.0), at(-0.03, 0.0), exponents=True)
    assert not within(at(0.01, 0.0), at(0.08, 0.0), exponents=True)


def test_noise_of_an_exponent():
    """A cost that is 10% off at one end of a range of 2^5 moves the exponent by less than 0.03."""
    xs = [2**i for i in range(6)]
    assert abs(exponent(xs, [1.1, 1, 1, 1, 1, 1])) < 0.03 < abs(math.log(1.1))
