"""Fixtures of rollouts."""

import pytest

from tests.laws.exact import float64_throughout


@pytest.fixture
def float64():
    """Models compute in float64 throughout."""
    with float64_throughout():
        yield
