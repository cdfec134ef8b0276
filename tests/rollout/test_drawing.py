"""Prompts in the order in which they are drawn."""

import numpy as np
import pytest

from burnish.data.dataset import as_dataset
from burnish.data.rows import DataError
from burnish.rollout.drawing import Prompts

ROWS = [{"prompt": "w" * (i + 1)} for i in range(6)]


def render(rows):
    return [np.arange(len(row["prompt"]), dtype=np.int32) for row in rows]


def made(rows=ROWS, *, shuffle=False, max_length=None, seed=1):
    return Prompts(as_dataset(rows), render, seed=seed, shuffle=shuffle, max_length=max_length)


def places(prompts, epoch, index=0):
    return [prompt.place for prompt, _ in prompts.drawn(epoch, index)]


def test_in_their_order_from_any_place_on():
    """The number that comes with each is where to go on."""
    drawn = list(made().drawn(0, 2))
    assert [(prompt.place, after) for prompt, after in drawn] == [(f"rows:{i}", i + 1) for i in range(2, 6)]
    assert [(len(prompt.token_ids), prompt.row) for prompt, _ in drawn] == [(i + 1, ROWS[i]) for i in range(2, 6)]


def test_shuffled_anew_in_each_epoch_and_the_same_by_seed():
    prompts = made(shuffle=True)
    first, second = places(prompts, 0), places(prompts, 1)
    assert sorted(first) == sorted(second) == [f"rows:{i}" for i in range(6)]
    assert first != second
    assert places(made(shuffle=True), 0) == first
    assert places(prompts, 0, 3) == first[3:]
    assert places(made(shuffle=True, seed=2), 0) != first


def test_a_draw_has_a_name_of_its_own():
    """The same row is drawn in two epochs, and the sampler's randomness is another one."""
    prompts = made()
    draws = [prompt.draw for epoch in (0, 1) for prompt, _ in prompts.drawn(epoch, 0)]
    assert draws[0] == "0:1:rows:0"
    assert draws[6] == "1:1:rows:0"
    assert len(set(draws)) == 12


def test_those_that_are_too_long_are_passed_over_and_counted():
    prompts = made(max_length=4)
    assert [(prompt.place, after) for prompt, after in prompts.drawn(0, 2)] == [("rows:2", 3), ("rows:3", 4)]
    assert prompts.too_long == {"rows:4": 1, "rows:5": 1}
    assert [prompt.place for prompt in prompts.all()] == [f"rows:{i}" for i in range(4)]
    assert [prompt.place for prompt in made(list(reversed(ROWS)), max_length=4).first(2)] == ["rows:2", "rows:3"]
    assert len(prompts) == 6, "draws of an epoch, those that are passed over among them"


def test_all_too_long():
    with pytest.raises(DataError, match=r"^All 6 prompts have more than max_prompt_length=0 tokens; allow longer ones\.$"):
        list(made(max_length=0).drawn(0, 0))


def test_a_row_that_cannot_be_rendered_is_named():
    def fails(rows):
        raise DataError("rows[0] has no prompt.")

    prompts = Prompts(as_dataset(ROWS), fails, seed=1, shuffle=False, max_length=None)
    with pytest.raises(DataError, match=r"^rows\[3\] has no prompt\.$"):
        list(prompts.drawn(0, 3))


def test_the_fingerprint_is_of_the_rows():
    assert made().fingerprint == made(shuffle=True).fingerprint != made(ROWS[:5]).fingerprint
