"""From tokens to completions: log-probs and weights of whole branches that are more than a plain sum over their tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from burnish.ops.reduce import per_branch


def place_in_branch(branch_N: Tensor, branches: int) -> Tensor:
    """0, 1, 2, … for the first, second, third, … trained token of each branch: `[N]` in, `[N]` out."""
    order_N = branch_N.argsort(stable=True)
    tokens_B = torch.bincount(branch_N, minlength=branches)
    first_B = tokens_B.cumsum(0) - tokens_B
    index_N = torch.arange(len(branch_N), device=branch_N.device)
    return torch.empty_like(branch_N).index_copy_(0, order_N, index_N - first_B[branch_N[order_N]])


def length_desensitised(logp_N: Tensor, branch_N: Tensor, shared_tokens_B: Tensor, *, ld_alpha: float) -> Tensor:
    """LD-DPO's log-prob of a completion (Liu et al. 2024, arXiv:2409.06411): up to the length of the shorter completion of its pair as
    it is, and what is longer times α. `[B]`, in nats; α = 1 is the plain sum.

    `shared_tokens_B` is ``min(|y_c|, |y_r|)`` in trained tokens, the same for both branches of a pair.
    """
    tail_N = place_in_branch(branch_N, len(shared_tokens_B)) >= shared_tokens_B[branch_N]
    return per_branch(torch.where(tail_N, ld_alpha * logp_N, logp_N), branch_N, len(shared_tokens_B))


def wpo_weight(logp_N: Tensor, log_sum_sq_probs_N: Tensor, branch_N: Tensor, branches: int) -> Tensor:
    """WPO's weight of a completion, ``exp(mean_t [log p(y_t) - log Σ_v p(v)²])`` (Zhou et al. 2024, arXiv:2406.11827, eq. 2).

    `[B]`, without gradient. `log_sum_sq_probs_N` is ``log Σ_v p(v)²`` of the distribution that each token was scored by: a sampled
    token's expected probability, so that a completion of the policy's own has a weight around 1. A pair's loss is multiplied by both
    of its weights. It has no meaning for `aot` and `aot_unpaired`, whose terms belong to no one pair.
    """
    tokens_B = torch.bincount(branch_N, minlength=branches)
    return (per_branch((logp_N - log_sum_sq_probs_N).detach(), branch_N, branches) / tokens_B).exp()
