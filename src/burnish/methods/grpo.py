"""Group-relative policy optimisation: a completion is as good as its reward is above those of the other completions of its prompt.

    A_i   = (r_i - mean(r)) / (std(r) + 1e-4)                                  (Shao et al. 2024, arXiv:2402.03300, section 4.1.2)
    w_t   = π(y_t) / π_old(y_t)
    L_t   = -min(w_t A, clip(w_t, 1 - ε, 1 + ε_high) A) + β w_t k3(π, π_ref)   (its eq. 3; k3: `ops/kl.py`)

and nine losses more, each a bound of the same ratios and a mean of the same tokens: `LOSSES`, with papers and equations in
`ops/surrogates.py`. The default is DAPO's (Yu et al. 2025, arXiv:2503.14476, eq. 8), as in TRL.

In the first update after sampling π_old is the policy itself: w is exactly 1, and nothing is clipped. Later on it is what the sampler
said of each token. Groups whose rewards are all equal have advantages of exactly 0; they are counted in every mean, and cost no
forward. A completion whose reward failed, or that `mask_truncated_completions` leaves out, is in no mean.

What we do differently from TRL 1.16: every mean is over the whole step, however it is cut in micro-batches, and so is the threshold of
`top_entropy_quantile`; completions that are masked because they were cut off are not counted in means over completions either; `gspo`,
`gmpo` are losses by name; `cispo` without an `epsilon_high` takes 5.0, where TRL takes `epsilon`, which would scale down all weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from burnish.config.grpo import GRPOConfig, Loss
from burnish.distributed.launch import all_sum, gather
from burnish.models.policy import Policy
from burnish.models.start import Started
from burnish.ops import kl, surrogates
from burnish.ops.advantages import group_advantages, normalize_then_sum, total_reward
from burnish.ops.balance import routed, with_balance
from burnish.ops.clipping import SUMS
from burnish.ops.entropy import AdaptiveEntropy, EntropyControl, adapted, bonus_coefficient, top_entropy_mask, top_entropy_threshold
from burnish.ops.pairs import options_of
from burnish.ops.ratios import importance_weights, off_policy_mask, ratio
from burnish.ops.reduce import Totals
from burnish.ops.rollouts import drawn_logps, old_logps, rollout_sums, rollouts_of, tokens_of
from burnish.ops.surrogates import MEANS, count, weight
from burnish.rollout.groups import Group, Judged
from burnish.rollout.judging import judged, reward_table
from burnish.rollout.source import RolloutBatches
from burnish.trainer.online import OnlineMethod, OnlineTrainer
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree

LOSSES = {name: surrogates.LOSSES[name] for name in get_args(Loss)}
LARGEST_RATIO = 5.0
"""Of cispo, where `epsilon_high` does not say it (ScaleRL, Khatri et al. 2025, arXiv:2510.13786)."""


def judge(groups: Sequence[Group], weights: Sequence[float], divergence_B: Tensor | None, args: GRPOConfig) -> Judged:
    """From rewards to advantages. `divergence_B`, where the KL is in the reward: ``log π - log π_ref`` of every rollout."""
    table, weight_K = reward_table(groups), torch.tensor(weights, dtype=torch.float64)
    reward_B, valid_B = total_reward(table.reward_BK, table.valid_BK, weight_K)
    if args.multi_objective_aggregation == "normalize_then_sum":
        return judged(table, reward_B, valid_B, normalize_then_sum(table.reward_BK, table.group_B, table.valid_BK, weight_K))
    kept_B = reward_B if divergence_B is None else reward_B - args.beta * divergence_B
    advantage_B = group_advantages(kept_B, table.group_B, valid_B, scale_rewards=args.scale_rewards)
    return judged(table, reward_B, valid_B, advantage_B, divergence_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the loss of a micro-batch has to know of more than itself."""

    version: int = 0
    """Optimizer steps that the policy has taken: completions of this version are its own."""
    entropy_coef: float = 0.0
    threshold: Tensor | None = None
    """Entropy that a token must reach to be learnt from; None: any."""


def loss_options(args: GRPOConfig) -> dict[str, Any]:
    """The options that the loss takes, where the user or this library has a say; else its paper's."""
    loss = args.loss_type
    own: dict[str, Any] = {"epsilon_high": LARGEST_RATIO} if loss == "cispo" else {}
    own |= {"importance_sampling_level": "sequence"} if loss == "luspo" else {}
    given: dict[str, Any] = {"epsilon": args.epsilon, "epsilon_high": args.epsilon_high, "delta": args.delta}
    given |= {"importance_sampling_level": args.importance_sampling_level}
    given |= {"sapo_temperature_pos": args.sapo_temperature_pos, "sapo_temperature_neg": args.sapo_temperature_neg}
    given |= {"vespo_k_pos": args.vespo_k_pos, "vespo_lambda_pos": args.vespo_lambda_pos}
    given |= {"vespo_k_neg": args.vespo_k_neg, "vespo_lambda_neg": args.vespo_lambda_neg}
    return own | {name: given[name] for name in options_of(LOSSES[loss]) if given[name] is not None}


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: GRPOConfig, known: Known) -> LossOut:
    """The loss of every token, weighed by what its mean is over; and what ratios, clips and the sampler did."""
    logp_N, loss, options = outputs.logp_N, args.loss_type, loss_options(args)
    entropy_N = outputs.entropy_N if outputs.entropy_N is not None else torch.zeros_like(logp_N)
    old_N = old_logps(logp_N, tree, known.version)
    importance_N = _importance(old_N, tree, args)
    kept_N = None if known.threshold is None else top_entropy_mask(entropy_N, known.threshold)
    rollouts = rollouts_of(logp_N, old_N, tree, importance_N=importance_N, kept_N=kept_N)
    loss_N = LOSSES[loss](rollouts, **options)
    if importance_N is not None and loss != "vespo":
        loss_N = loss_N * importance_N
    if kept_N is not None and loss != "gmpo":
        loss_N = loss_N * kept_N
    if args.off_policy_mask_threshold is not None and (drawn_N := drawn_logps(tree)) is not None:
        given = (rollouts.advantage_N, logp_N, drawn_N.to(logp_N.dtype), tree.branch_N, rollouts.tokens_B)
        loss_N = loss_N * off_policy_mask(*given, threshold=args.off_policy_mask_threshold)
    clips = SUMS[loss](rollouts, **{name: options[name] for name in options_of(SUMS[loss]) if name in options})
    metrics = rollout_sums(tree, outputs, rollouts) | clips
    if tree.ref_logp_N is not None and not args.kl_in_reward:
        ref_N = tree.ref_logp_N.to(logp_N.dtype)
        kl_N = kl.in_loss(logp_N, ref_N, ratio(rollouts.log_ratio_N)) if args.use_bias_correction_kl else kl.k3(logp_N, ref_N)
        loss_N = loss_N + args.beta * kl_N
        metrics["kl"] = Sum(total=kl.k3(logp_N, ref_N).detach().sum(), count=float(tree.N))
    terms = {"policy": Sum(total=(weight(MEANS[loss], rollouts.tokens_B, tree.branch_N) * loss_N).sum(), count=_count(tree, args))}
    if args.entropy_coef or args.use_adaptive_entropy:
        learnt_N = entropy_N if kept_N is None else entropy_N * kept_N
        terms["entropy"] = Sum(total=-known.entropy_coef * learnt_N.sum(), count=float(tree.N))
    if args.use_adaptive_entropy:
        metrics["entropy_coef"] = Sum(total=logp_N.new_tensor(known.entropy_coef * tree.N), count=float(tree.N))
    return LossOut(terms=terms, metrics=metrics)


def _count(tree: TokenTree, args: GRPOConfig) -> float:
    tokens_B = tokens_of(tree)
    return count(MEANS[args.loss_type], tokens_B[tokens_B > 0], args.max_completion_length)


def _importance(old_N: Tensor, tree: TokenTree, args: GRPOConfig) -> Tensor | None:
    """``π_old/μ`` where a server drew the tokens, from what it takes for the policy."""
    if tree.sampled_logp_N is None or not (args.use_vllm and args.vllm_importance_sampling_correction) or args.loss_type == "gmpo":
        return None
    return importance_weights(
        old_N, tree.sampled_logp_N.to(old_N.dtype), tree.branch_N, tokens_of(tree), mode=args.vllm_importance_sampling_mode,
        clip_max=args.vllm_importance_sampling_clip_max, clip_min=args.vllm_importance_sampling_clip_min,
    )  # fmt: skip


class GRPO(OnlineMethod):
    """The method as the loop sees it. Beside what all online methods remember, the entropy bonus is its state."""

    def __init__(self, args: GRPOConfig, *, policy: Policy | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.args, self.policy = args, policy
        self.control = EntropyControl(coefficient=args.entropy_coef)
        self.adaptive: AdaptiveEntropy | None = None
        if args.use_adaptive_entropy:
            self.adaptive = AdaptiveEntropy(
                entropy_coef_min=args.entropy_coef_min, entropy_coef_max=args.entropy_coef_max,
                entropy_coef_delta=args.entropy_coef_delta, entropy_target=args.entropy_target,
            )  # fmt: skip

    def look_ahead(self, trees: Iterable[TokenTree]) -> Iterable[tuple[TokenTree, Known]]:
        """Log-probs of the reference; for the entropy that a token must reach, a forward of the policy over the whole step."""
        reference = self.reference
        if reference is not None and not self.args.kl_in_reward:
            trees = (replace(tree, ref_logp_N=reference(tree)) for tree in trees)
        known = Known(version=self.version, entropy_coef=bonus_coefficient(self.control, self.adaptive))
        if self.args.top_entropy_quantile < 1 and (trees := list(trees)):
            known = replace(known, threshold=self._threshold(trees))
        return ((tree, known) for tree in trees)

    @torch.no_grad()
    def _threshold(self, trees: list[TokenTree]) -> Tensor:
        assert self.policy is not None
        mine = [self.policy(tree).entropy_N.float().cpu() for tree in trees]
        everyone = torch.cat([one for part in gather(mine, self.here, "the entropies of a step") for one in part])
        return top_entropy_threshold(everyone, top_entropy_quantile=self.args.top_entropy_quantile).to(self.here.device)

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        entropy = {"entropy": float(tree.N)} if self.args.entropy_coef or self.args.use_adaptive_entropy else {}
        return {"policy": _count(tree, self.args)} | entropy | ({"aux": routed(tree)} if self.aux_loss_coef else {})

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: Known) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args, known), tree, outputs, self.aux_loss_coef)

    def after_step(self, step: int, totals: Totals) -> None:
        super().after_step(step, totals)
        if self.args.use_adaptive_entropy:
            total, n = all_sum({"entropy": totals.get("entropy", (0.0, 0.0))}, self.here, f"the entropy of step {step}")["entropy"]
            self.control = adapted(self.control, total / max(n, 1.0), self.adaptive)

    def state(self) -> dict[str, Any]:
        return super().state() | {"entropy": [self.control.coefficient, self.control.entropy]}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().restore(state, tensors)
        coefficient, entropy = state["entropy"]
        self.control = EntropyControl(coefficient=coefficient, entropy=entropy)


class GRPOTrainer(OnlineTrainer[GRPOConfig]):
    """``GRPOTrainer("org/model", reward_funcs=f, args=GRPOConfig(), train_dataset="prompts.jsonl").train()``. See `OnlineTrainer`."""

    config_class = GRPOConfig

    def learner(self, started: Started, rollouts: RolloutBatches) -> GRPO:
        given: dict[str, Any] = {"reference": started.reference, "rollouts": rollouts, "here": self.here}
        return GRPO(self.args, policy=started.policy, aux_loss_coef=started.aux_loss_coef, **given)

    def judge(self, groups: Sequence[Group], weights: Sequence[float]) -> Judged:
        divergence_B = self.divergences(groups) if self.args.beta and self.args.kl_in_reward else None
        return judge(groups, weights, divergence_B, self.args)

    @property
    def keeps_all(self) -> bool:
        args = self.args
        in_loss = args.beta > 0 and not args.kl_in_reward
        return in_loss or args.entropy_coef > 0 or args.use_adaptive_entropy or args.top_entropy_quantile < 1
