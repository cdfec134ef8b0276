"""What each of two processes samples from one sharded policy. Run as a module: python -m tests.rollout.two_processes OUTPUT."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from burnish.distributed.launch import gather, launch
from burnish.distributed.wrap import Sharding, make_mesh, shard
from burnish.rollout.sampler import Sampling
from burnish.types import TokenTree
from tests.laws.trees import make_tree
from tests.models.families import VOCABULARY
from tests.rollout.sampled import policy_of, requests, sampler_of, tokens, trainers_logps

SITUATIONS = {"layers given up": Sharding(), "layers kept": Sharding(reshard=False)}
SAMPLING = Sampling(temperature=0.8, stop_token_ids=(5, 6, 7))


def asked(rank: int) -> list:
    """Rank 0 has twelve, of up to 40 tokens; rank 1 has none the first time, and two the second."""
    return (
        [requests(max_tokens=40), requests(lengths=(5,), samples=2, seed=1)]
        if rank == 0
        else [[], requests(lengths=(3,), samples=2, seed=2)]
    )


def main(output: Path) -> None:
    torch.set_num_threads(1)
    here = launch()
    found = []
    for sharding in SITUATIONS.values():
        policy = policy_of()
        shard(policy, here, sharding, make_mesh(here, sharding))
        train(policy)
        for part in asked(here.rank):
            completions = list(sampler_of(policy).sample(part, SAMPLING))
            shards = {type(one).__name__ for one in policy.parameters()}
            gap = max_gap(policy, completions)
            found.append((tokens(completions), shards, gap, train(policy)))
    torch.save(found, output / f"{here.rank}.pt")
    gather(None, here)  # nobody leaves before both have written


def tree_of_few() -> TokenTree:
    return make_tree(VOCABULARY)


def train(policy) -> float:
    """A step that both take: the norm of the gradient, which needs the layers to be gathered and given up as ever."""
    loss = -policy(tree_of_few()).logp_N.mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(list(policy.parameters()), 1.0).full_tensor()
    policy.zero_grad()
    return float(norm)


def max_gap(policy, completions) -> float:
    """Both ranks run a forward; the one without completions runs it for the other's sake."""
    if not completions:
        with torch.no_grad():
            policy(tree_of_few())
        return 0.0
    wanted = trainers_logps(policy, completions, SAMPLING.temperature)
    return max(float((torch.from_numpy(one.logp) - logp).abs().max()) for one, logp in zip(completions, wanted, strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
