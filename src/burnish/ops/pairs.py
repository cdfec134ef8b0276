"""From the tokens of a tree to its pairs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from burnish.ops.preference import Pairs, ReferencedPairs
from burnish.ops.reduce import per_branch
from burnish.ops.weighting import length_desensitised
from burnish.types import Sum, TokenOutputs, TokenTree


def tokens_of(tree: TokenTree) -> Tensor:
    """Trained tokens of each branch: `[B]`."""
    return torch.bincount(tree.branch_N, minlength=tree.B)


def branch_logp(logp_N: Tensor, tree: TokenTree, *, ld_alpha: float | None = None) -> Tensor:
    """Log-prob of each branch: `[B]`, in nats; length-desensitised where `ld_alpha` is given (see `weighting.length_desensitised`)."""
    if ld_alpha is None:
        return per_branch(logp_N, tree.branch_N, tree.B)
    tokens_B, pairs_P2 = tokens_of(tree), tree.pairs
    shared_B = tokens_B.index_copy(0, pairs_P2.flatten(), tokens_B[pairs_P2].amin(1).repeat_interleave(2))
    return length_desensitised(logp_N, tree.branch_N, shared_B, ld_alpha=ld_alpha)


def pairs_of(logp_N: Tensor, tree: TokenTree, *, ld_alpha: float | None = None) -> Pairs:
    """The tree's pairs under the policy whose log-probs these are."""
    chosen_P, rejected_P = tree.pairs.unbind(1)
    logp_B, tokens_B = branch_logp(logp_N, tree, ld_alpha=ld_alpha), tokens_of(tree)
    return Pairs(
        chosen_logp_P=logp_B[chosen_P],
        rejected_logp_P=logp_B[rejected_P],
        chosen_tokens_P=tokens_B[chosen_P],
        rejected_tokens_P=tokens_B[rejected_P],
    )


def referenced_pairs_of(logp_N: Tensor, ref_logp_N: Tensor, tree: TokenTree, *, ld_alpha: float | None = None) -> ReferencedPairs:
    """The tree's pairs under the policy and under the reference."""
    policy, reference = (pairs_of(one, tree, ld_alpha=ld_alpha) for one in (logp_N, ref_logp_N))
    return ReferencedPairs(
        chosen_logp_P=policy.chosen_logp_P,
        rejected_logp_P=policy.rejected_logp_P,
        chosen_tokens_P=policy.chosen_tokens_P,
        rejected_tokens_P=policy.rejected_tokens_P,
        ref_chosen_logp_P=reference.chosen_logp_P,
        ref_rejected_logp_P=reference.rejected_logp_P,
    )


def pair_metrics(tree: TokenTree, outputs: TokenOutputs) -> dict[str, Sum]:
    """What every method over pairs logs, under TRL's names: log-probs of whole completions, and of their tokens entropy and hits."""
    pairs, tokens_B = pairs_of(outputs.logp_N.detach(), tree), tokens_of(tree)
    chosen_P = tree.pairs[:, 0]
    count, chosen_tokens = float(len(chosen_P)), tokens_B[chosen_P].sum()
    metrics = {"logps/chosen": Sum(total=pairs.chosen_logp_P.sum(), count=count)}
    metrics["logps/rejected"] = Sum(total=pairs.rejected_logp_P.sum(), count=count)
    if outputs.entropy_N is not None:
        metrics["entropy"] = Sum(total=outputs.entropy_N.detach().sum(), count=float(tree.N))
    if outputs.top1_N is not None:
        hits_P = per_branch(outputs.top1_N, tree.branch_N, tree.B)[chosen_P]
        metrics["mean_token_accuracy"] = Sum(total=hits_P.sum(), count=float(chosen_tokens))
    return metrics


def reward_sums(chosen_P: Tensor, rejected_P: Tensor) -> dict[str, Sum]:
    """Implicit rewards and what they say of each pair, under TRL's names.

    A pair counts as right where its margin is above 0: at the start, where all margins are 0, the accuracy is 0.
    """
    chosen_P, rejected_P = chosen_P.detach(), rejected_P.detach()
    columns = {"chosen": chosen_P, "rejected": rejected_P, "margins": chosen_P - rejected_P, "accuracies": chosen_P > rejected_P}
    return {f"rewards/{name}": Sum(total=column_P.sum(), count=float(len(column_P))) for name, column_P in columns.items()}


def options_of(loss: Callable[..., Any]) -> tuple[str, ...]:
    """The keywords of a loss: the options that it uses."""
    return tuple(name for name, one in inspect.signature(loss).parameters.items() if one.kind is one.KEYWORD_ONLY)
