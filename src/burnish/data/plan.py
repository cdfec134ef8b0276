"""Which examples of an optimizer step go together in a micro-batch, and on which rank. Pure; every rank computes the same plan."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Plan = list[list[list[int]]]
"""``plan[rank][micro_step]`` holds positions in the step. Every rank has the same number of micro-steps."""


def plan_step(lengths: Sequence[int], max_tokens: int, ranks: int = 1) -> Plan:
    """Balances a step's examples over micro-batches of at most `max_tokens` tokens and over `ranks`.

    Longest first into the emptiest bin, with the fewest bins (a multiple of `ranks`) that fit. An example that is longer
    than the budget stands alone. A rank's micro-batch is empty only when there are not enough examples for all ranks.

    Worked example: lengths ``[5, 3, 2, 2]``, at most 8 tokens, one rank: ``[[[0, 3], [1, 2]]]``, of 7 and 5 tokens.
    """
    if max_tokens < 1 or ranks < 1:
        raise ValueError(f"A plan needs at least one token and one rank, not max_tokens={max_tokens} and ranks={ranks}.")
    bins = ranks * max(1, -(-sum(min(n, max_tokens) for n in lengths) // (max_tokens * ranks)))
    while True:
        filled = _longest_first(lengths, bins)
        if all(len(one) < 2 or sum(lengths[i] for i in one) <= max_tokens for one in filled):
            break
        bins += ranks
    steps = [filled[i : i + ranks] for i in range(0, bins, ranks)]
    return [[sorted(step[rank]) for step in steps if any(step)] for rank in range(ranks)]


def _longest_first(lengths: Sequence[int], bins: int) -> list[list[int]]:
    heap = [(0, b) for b in range(bins)]
    filled: list[list[int]] = [[] for _ in range(bins)]
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, b = heapq.heappop(heap)
        filled[b].append(i)
        heapq.heappush(heap, (load + lengths[i], b))
    return filled
