"""One forward over examples: what is said of each target, in the order of the examples, whatever the number of ranks."""

from dataclasses import replace
from threading import Barrier, Thread

import numpy as np
import pytest

from burnish.data import spread as module
from burnish.data.spread import spread
from burnish.distributed.launch import Launch
from burnish.types import Branch, Example, Segment


def example(number, *lengths, context=3):
    prompt = Segment(token_ids=np.full(context, 1), source="prompt", trained=False)
    branches = []
    for j, length in enumerate(lengths):
        ids = 100 * number + 10 * j + np.arange(length)
        branches.append(Branch(segments=(Segment(token_ids=ids, source="model", trained=True),)))
    return Example(group_id=f"group {number}", prompt=(prompt,), branches=tuple(branches))


EXAMPLES = [example(1, 2, 3), example(2, 7), example(3, 1, 1, 4), example(4, 2)]
WANTED = [[100, 101, 110, 111, 112], [*range(200, 207)], [300, 310, 320, 321, 322, 323], [400, 401]]
"""A forward that says of each target its own id."""


def ids_of(calls):
    def forward(tree):
        calls.append(tree.T)
        return tree.target_N.double()

    return forward


@pytest.mark.parametrize("max_tokens", [10**6, 12, 8, 1])
def test_every_target_in_its_place(max_tokens):
    """Groups of more than `max_tokens` are cut between branches, and put together again."""
    calls = []
    found = spread(EXAMPLES, ids_of(calls), max_tokens, Launch())
    assert [one.tolist() for one in found] == WANTED
    assert all(one.dtype == np.float32 for one in found)
    assert len(calls) == {10**6: 1, 1: 7}.get(max_tokens, len(calls))
    assert max_tokens in (1, 10**6) or 1 < len(calls) < 7


def test_what_is_left_out_is_not_computed():
    silent = replace(EXAMPLES[1], branches=(Branch(segments=(), left_out=7),))
    calls = []
    assert [one.tolist() for one in spread([silent, EXAMPLES[3]], ids_of(calls), 100, Launch())] == [[], [400, 401]]
    assert calls == [5]
    assert [one.tolist() for one in spread([silent], ids_of(calls), 100, Launch())] == [[]]
    assert spread([], ids_of(calls), 100, Launch()) == []
    assert calls == [5]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_take_the_same_number_of_turns_and_know_all(ranks, monkeypatch):
    """Shards are gathered by all ranks together, so a rank without a micro-batch computes one as well."""
    everyone, here_together, found, calls = {}, Barrier(ranks, timeout=20), {}, {rank: [] for rank in range(ranks)}

    def gather(value, here, what):
        everyone[here.rank] = value
        here_together.wait()
        return [everyone[rank] for rank in range(ranks)]

    monkeypatch.setattr(module, "gather", gather)

    def one(rank):
        found[rank] = spread(EXAMPLES, ids_of(calls[rank]), 12, Launch(rank=rank, world_size=ranks))

    threads = [Thread(target=one, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [[part.tolist() for part in found[rank]] for rank in range(ranks)] == [WANTED] * ranks
    assert len({len(one) for one in calls.values()}) == 1
