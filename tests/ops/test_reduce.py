"""Sums and counts, by hand."""

import torch

from burnish.ops.reduce import add, per_branch, read
from burnish.types import Sum


def test_add_goes_name_by_name_and_in_place():
    totals = {"a": (1.0, 2.0)}
    assert add(totals, {"a": (3.0, 4.0), "b": (5.0, 6.0)}) is totals
    assert totals == {"a": (4.0, 6.0), "b": (5.0, 6.0)}


def test_read_adds_in_float64():
    """2^24 + 1 + 1 is lost in float32 and kept here."""
    parts = [2.0**24, 1.0, 1.0]
    assert read([{"x": Sum(total=torch.tensor(v), count=1)} for v in parts]) == {"x": (2.0**24 + 2, 3.0)}


def test_read_of_nothing():
    assert read([]) == {}
    assert read([{}, {}]) == {}


def test_per_branch():
    """Tokens 1, 2 and 4 belong to branch 0, token 3 to branch 2; branch 1 has none."""
    value_N = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    total_B = per_branch(value_N, torch.tensor([0, 0, 2, 0]), 3)
    assert total_B.tolist() == [7.0, 0.0, 3.0]
    total_B[0].backward()
    assert value_N.grad.tolist() == [1.0, 1.0, 0.0, 1.0]
