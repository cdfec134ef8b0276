"""One forward pass over examples, spread over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from burnish.data.plan import plan_step
from burnish.data.tree import build_tree, split_example
from burnish.distributed.launch import Launch, gather
from burnish.types import Example, TokenTree


def spread(examples: Sequence[Example], forward: Callable[[TokenTree], Tensor], max_tokens: int, here: Launch) -> list[np.ndarray]:
    """What `forward` says of every target of each example, float32 `[trained_tokens]`, branch by branch; the same on every rank.

    The micro-batches are the same whatever the number of ranks, and so are the bits. Call on every rank.
    """
    parts = [(i, part) for i, whole in enumerate(examples) if len(whole) for part in split_example(whole, max_tokens)]
    plan = plan_step([len(part) for _, part in parts], max_tokens)[0] if parts else []
    mine: dict[int, np.ndarray] = {}
    for turn in range(-(-len(plan) // here.world_size)):
        number = turn * here.world_size + here.rank
        micro = plan[number] if number < len(plan) else plan[-1][:1]  # shards want every rank to take every turn
        value_N = forward(build_tree([parts[i][1] for i in micro]).to(here.device)).float().cpu()
        if number < len(plan):
            split = np.split(value_N.numpy(), np.cumsum([parts[i][1].trained_tokens for i in micro])[:-1])
            mine |= dict(zip(micro, split, strict=True))
    found = {i: value for rank in gather(mine, here, "a forward of all examples") for i, value in rank.items()}
    whole: list[list[np.ndarray]] = [[np.zeros(0, np.float32)] for _ in examples]
    for number, (i, _) in enumerate(parts):
        whole[i].append(found[number])
    return [np.concatenate(one) for one in whole]
