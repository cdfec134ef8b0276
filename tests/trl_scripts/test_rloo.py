"""TRL's scripts of RLOO, with their import lines changed."""

import pytest

from tests.trl_scripts.online import RLOO
from tests.trl_scripts.test_rollouts import check_one_turn


@pytest.fixture(scope="module")
def model(taught):
    return taught


@pytest.mark.parametrize("name", RLOO)
def test_one_turn(name, here):
    check_one_turn(name, RLOO[name])
