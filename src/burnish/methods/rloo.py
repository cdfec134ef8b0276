"""REINFORCE leave-one-out: a completion is as good as its reward is above the mean of the other completions of its prompt.

    r_i = R(y_i) - β (log π_old(y_i) - log π_ref(y_i))
    A_i = r_i - mean of r_j, j ≠ i                                              (Ahmadian et al. 2024, arXiv:2402.14740, eq. 8)
    L_i = -min(w_i A_i, clip(w_i, 1 - ε, 1 + ε_high) A_i),  w_i = π(y_i) / π_old(y_i)

A completion is one action: its ratio is that of all its tokens. The mean is over completions. In the first update after sampling w is
exactly 1, and the gradient is the paper's. The clip is for further updates (`num_iterations`), as in TRL.

What we do differently from TRL 1.16: groups are known by their prompt, not by their place in a batch; a completion whose reward failed is
in no mean; groups whose rewards are all equal have advantages of exactly 0 and cost no forward. At the start of a run, where the policy is
its own reference, the divergence is 0 and is not computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from burnish.config.rloo import RLOOConfig
from burnish.models.start import Started
from burnish.ops.advantages import leave_one_out, normalize_advantages, total_reward
from burnish.ops.balance import routed, with_balance
from burnish.ops.clipping import rloo_sums
from burnish.ops.rollouts import old_logps, rollout_sums, rollouts_of, tokens_of
from burnish.ops.surrogates import count, rloo_loss, weight
from burnish.rollout.groups import Group, Judged
from burnish.rollout.judging import judged, reward_table
from burnish.rollout.source import RolloutBatches
from burnish.trainer.online import OnlineMethod, OnlineTrainer
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree

LOSSES = {"rloo": rloo_loss}


def judge(groups: Sequence[Group], weights: Sequence[float], divergence_B: Tensor | None, args: RLOOConfig) -> Judged:
    """From rewards to advantages. `divergence_B`: ``log π_old - log π_ref`` of every rollout, where there is a reference."""
    table, weight_K = reward_table(groups), torch.tensor(weights, dtype=torch.float64)
    reward_B, valid_B = total_reward(table.reward_BK, table.valid_BK, weight_K)
    kept_B = reward_B if args.reward_clip_range is None else reward_B.clamp(*args.reward_clip_range)
    kept_B = kept_B if divergence_B is None else kept_B - args.beta * divergence_B
    advantage_B = leave_one_out(kept_B, table.group_B, valid_B)
    if args.normalize_advantages:
        advantage_B = normalize_advantages(advantage_B, kept_B, table.group_B, valid_B)
    return judged(table, reward_B, valid_B, advantage_B, divergence_B)


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: RLOOConfig, version: int) -> LossOut:
    """The clipped loss of every completion; `version`: optimizer steps that the policy has taken."""
    rollouts = rollouts_of(outputs.logp_N, old_logps(outputs.logp_N, tree, version), tree)
    clip: dict[str, Any] = {"epsilon": args.epsilon, "epsilon_high": args.epsilon_high}
    weight_N = weight("sequence", rollouts.tokens_B, tree.branch_N)
    terms = {"policy": Sum(total=(weight_N * rloo_loss(rollouts, **clip)).sum(), count=_count(tree))}
    return LossOut(terms=terms, metrics=rollout_sums(tree, outputs, rollouts) | rloo_sums(rollouts, **clip))


def _count(tree: TokenTree) -> float:
    tokens_B = tokens_of(tree)
    return count("sequence", tokens_B[tokens_B > 0], 1)


class RLOO(OnlineMethod):
    """The method as the loop sees it."""

    def __init__(self, args: RLOOConfig, **more: Any) -> None:
        super().__init__(**more)
        self.args = args

    def look_ahead(self, trees: Iterable[TokenTree]) -> Iterable[tuple[TokenTree, int]]:
        return ((tree, self.version) for tree in trees)

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        return {"policy": _count(tree)} | ({"aux": routed(tree)} if self.aux_loss_coef else {})

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: int) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args, known), tree, outputs, self.aux_loss_coef)


class RLOOTrainer(OnlineTrainer[RLOOConfig]):
    """``RLOOTrainer("org/model", reward_funcs=f, args=RLOOConfig(), train_dataset="prompts.jsonl").train()``. See `OnlineTrainer`."""

    config_class = RLOOConfig

    def learner(self, started: Started, rollouts: RolloutBatches) -> RLOO:
        given: dict[str, Any] = {"reference": started.reference, "rollouts": rollouts, "here": self.here}
        return RLOO(self.args, aux_loss_coef=started.aux_loss_coef, **given)

    def judge(self, groups: Sequence[Group], weights: Sequence[float]) -> Judged:
        return judge(groups, weights, self.divergences(groups) if self.args.beta else None, self.args)
