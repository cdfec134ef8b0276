"""From the tokens of a tree to `surrogates.Rollouts`, and what is logged of them."""

from __future__ import annotations

import torch
from torch import Tensor

from burnish.ops.ratios import logp_gap, ratio
from burnish.ops.surrogates import Rollouts
from burnish.types import Sum, TokenOutputs, TokenTree


def tokens_of(tree: TokenTree) -> Tensor:
    """Trained tokens of each branch, those that are left out among them: `[B]`."""
    there_B = torch.bincount(tree.branch_N, minlength=tree.B)
    return there_B if tree.left_out_B is None else there_B + tree.left_out_B


def old_logps(logp_N: Tensor, tree: TokenTree, version: int) -> Tensor:
    """``log π_old`` of each token, `[N]`, in nats, without gradient: the policy's own where it sampled them and has not moved since (its
    version is still `version`), so that the ratio is exactly 1; else as it was when it sampled."""
    if tree.policy_version_B is None or tree.behaviour_logp_N is None:
        return logp_N.detach()
    fresh_N = (tree.policy_version_B == version)[tree.branch_N]
    return torch.where(fresh_N, logp_N.detach(), tree.behaviour_logp_N.to(logp_N.dtype))


def drawn_logps(tree: TokenTree) -> Tensor | None:
    """Log-probs of the distribution that tokens were drawn from, as the sampler said them: `[N]`."""
    return tree.behaviour_logp_N if tree.sampled_logp_N is None else tree.sampled_logp_N


def rollouts_of(
    logp_N: Tensor, old_logp_N: Tensor, tree: TokenTree, *, importance_N: Tensor | None = None, kept_N: Tensor | None = None
) -> Rollouts:
    """The tree's completions, each token with its completion's advantage."""
    advantage_B = torch.zeros(tree.B, device=logp_N.device) if tree.advantage_B is None else tree.advantage_B
    return Rollouts(
        logp_N=logp_N,
        old_logp_N=old_logp_N,
        advantage_N=advantage_B.to(logp_N.dtype)[tree.branch_N],
        branch_N=tree.branch_N,
        tokens_B=tokens_of(tree),
        importance_N=importance_N,
        kept_N=kept_N,
    )


def rollout_sums(tree: TokenTree, outputs: TokenOutputs, rollouts: Rollouts) -> dict[str, Sum]:
    """Means over the tokens that are computed: the ratio, the entropy, and how far the sampler's log-probs are from the trainer's."""
    n, found = float(tree.N), dict[str, Sum]()
    found["ratio"] = Sum(total=ratio(rollouts.log_ratio_N.detach()).sum(), count=n)
    if outputs.entropy_N is not None:
        found["entropy"] = Sum(total=outputs.entropy_N.detach().sum(), count=n)
    told_N = tree.sampled_logp_N if tree.behaviour_logp_N is None else tree.behaviour_logp_N
    if told_N is not None:
        gap_N = logp_gap(rollouts.old_logp_N, told_N.to(rollouts.old_logp_N.dtype))
        found["sampling/sampling_logp_difference/mean"] = Sum(total=gap_N.sum(), count=n)
    if rollouts.importance_N is not None:
        found["sampling/importance_sampling_ratio/mean"] = Sum(total=rollouts.importance_N.sum(), count=n)
    return found
