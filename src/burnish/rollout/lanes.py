"""Sampling in several lanes at once, on a CPU.

A step of decoding is hundreds of small operations, and cores that share each of them wait for each other at the end of each. Lanes do
not: each has prompts of its own, a thread and its share of the cores, and all read the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from burnish.models.policy import Policy
from burnish.rollout.sampler import Request

ROWS = 32
"""Completions that a lane has at least at first: with 32 in all, two lanes are no faster than one (docs/measured.md)."""


def lanes_of(policy: Policy, requests: Sequence[Request], most_rows: int) -> int:
    """How many lanes are worth it; it depends on nothing that changes from one run to the next on the same cores."""
    if policy.device.type != "cpu" or policy.paths.attention != "tree" or isinstance(policy, FSDPModule):
        return 1
    contexts = len({request.token_ids.tobytes() for request in requests})
    return max(1, min(torch.get_num_threads(), min(len(requests), most_rows) // ROWS, contexts))


def dealt(requests: Sequence[Request], lanes: int) -> list[list[Request]]:
    """The requests of each lane. Those with one context are in one lane; contexts go to the lane that has the fewest requests yet."""
    shares: list[list[Request]] = [[] for _ in range(lanes)]
    by_context: dict[bytes, list[Request]] = {}
    for request in requests:
        by_context.setdefault(request.token_ids.tobytes(), []).append(request)
    for group in by_context.values():
        min(shares, key=len).extend(group)
    return shares


Work = Callable[[], Any]


@contextmanager
def in_lanes(lanes: int) -> Iterator[Callable[[Sequence[Work]], list[Any]]]:
    """Gives a function that calls functions at once, each on its share of this thread's cores, and waits for all of them."""
    cores = torch.get_num_threads()

    def alone(work: Work, share: int) -> Any:
        torch.set_num_threads(share)
        return work()

    with ThreadPoolExecutor(lanes) as pool:

        def together(works: Sequence[Work]) -> list[Any]:
            if len(works) == 1:
                return [works[0]()]
            begun = [pool.submit(alone, work, cores // len(works)) for work in works]
            try:
                wait(begun)
            finally:
                torch.set_num_threads(cores)  # PyTorch takes what was said last for all threads that ask, this one too
            return [one.result() for one in begun]

        yield together
