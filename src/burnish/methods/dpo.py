"""Direct preference optimisation: raise the chosen completion of a prompt over the rejected one, measured from a reference.

    h   = log π(y|x) - log π_ref(y|x),  z = β (h_c - h_r)
    L   = -log σ(z)                                                 (Rafailov et al. 2023, arXiv:2305.18290, eq. 7)
    L   = -(1-ε) log σ(z) - ε log σ(-z)                             (with label smoothing: Mitchell 2023, eq. 3)

and thirteen losses more over the same two log-ratios: `LOSSES`, each with its paper and equation in `ops/preference.py`. Several are
added up with `loss_weights` (MPO, Wang et al. 2024, arXiv:2411.10442, eq. 1). A log-ratio becomes another score under an f-divergence
(`ops/divergences.py`); tokens beyond the shorter completion weigh `ld_alpha` (LD-DPO, arXiv:2409.06411); pairs weigh what the policy
thinks of them with `use_weighting` (WPO, arXiv:2406.11827); the reference follows the policy with `sync_ref_model` (TR-DPO).

What we do differently from TRL 1.16, each of which has its own behaviour under another name:

    sigmoid           label smoothing is conservative DPO, as in the paper; TRL ignores it            sigmoid_trl
    bco_pair          rewards are shifted by their running mean δ, as in the paper; TRL's are not     bco_pair_trl
    sft               each answer counts alike, as in the papers; in TRL each token does              sft_trl
    alpha_divergence  α as in the paper; TRL has 1 - α in its place                                   alpha_divergence_trl

`aot` and `aot_unpaired` rank the pairs of the whole step, and not of each micro-batch. A pair's prompt is computed once. At the start,
where policy and reference are the same, h is exactly 0. δ is the mean of all steps before this one.
Evidence: `bench/parity_preference.py` (the same losses and gradient norms as TRL 1.16, loss by loss).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from burnish.config.dpo import DPOConfig
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.distributed.launch import Launch, all_sum, gather
from burnish.models.policy import Policy
from burnish.models.reference import Reference
from burnish.models.start import Started
from burnish.ops import preference
from burnish.ops.balance import routed, with_balance
from burnish.ops.divergences import DIVERGENCES, DIVERGENCES_AS_IN_TRL, Divergence
from burnish.ops.pairs import options_of, pair_metrics, pairs_of, referenced_pairs_of, reward_sums, tokens_of
from burnish.ops.preference import PairLoss, Pairs, ReferencedPairs
from burnish.ops.reduce import Totals
from burnish.ops.unpaired import reward_shift
from burnish.ops.weighting import wpo_weight
from burnish.run import Method
from burnish.trainer.reference import ReferenceTrainer
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree

TRL = "_trl"
LOSSES: dict[str, PairLoss] = preference.LOSSES | {name + TRL: loss for name, loss in preference.LOSSES_AS_IN_TRL.items()}
"""`loss_type` → function from P pairs to losses `[P]`."""
RANKED = ("aot", "aot_unpaired")
UNREFERENCED = ("sft", "sft_trl")


def prepare_options(args: DPOConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: a prompt with two branches, the chosen one first, of which every token is trained."""
    return PrepareOptions(format=row_format, accepted=args.row_formats, max_length=args.max_length, truncation_mode=args.truncation_mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the losses of a micro-batch have to know of more than itself."""

    delta: float = 0.0
    """BCO's reward shift."""
    partners: Mapping[str, tuple[float, float, float]] | None = None
    """Group id → the partners of a pair among all pairs of the step (see `partners_of`); None where the micro-batch is the whole step."""


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: DPOConfig, known: Known) -> LossOut:
    """Each loss over the tree's P pairs, times its weight; rewards and log-probs as TRL names them."""
    plain = pairs_of(outputs.logp_N, tree)
    pairs = plain if tree.ref_logp_N is None else referenced_pairs_of(outputs.logp_N, tree.ref_logp_N, tree, ld_alpha=args.ld_alpha)
    weight_P: Tensor | float = 1.0
    if args.use_weighting:
        assert outputs.log_sum_sq_N is not None
        weight_P = wpo_weight(outputs.logp_N, outputs.log_sum_sq_N, tree.branch_N, tree.B)[tree.pairs].prod(1)
    terms, metrics = dict[str, Sum](), pair_metrics(tree, outputs)
    for name, weight in zip(args.loss_type, args.loss_weights or [1.0] * len(args.loss_type), strict=True):
        loss_P = weight_P * _loss(name, tree, plain if name in UNREFERENCED else pairs, args, known)
        terms[name] = Sum(total=weight * loss_P.sum(), count=_count(name, tree))
        if len(args.loss_type) > 1:
            metrics[f"loss/{name}"] = Sum(total=loss_P.detach().sum(), count=_count(name, tree))
    if isinstance(pairs, ReferencedPairs):
        metrics |= reward_sums(args.beta * pairs.chosen_logratio_P, args.beta * pairs.rejected_logratio_P)
    return LossOut(terms=terms, metrics=metrics)


def _loss(name: str, tree: TokenTree, pairs: Pairs, args: DPOConfig, known: Known) -> Tensor:
    """`[P]`."""
    if name == "sft_trl":
        return LOSSES[name](pairs, tokens_per_pair=1.0)  # divided by the tokens of the whole step, as its count says
    given: dict[str, Any] = {"beta": args.beta, "label_smoothing": args.label_smoothing, "discopop_tau": args.discopop_tau}
    given |= {"divergence": divergence(args), "delta": known.delta, **_partners(name, tree, known, pairs.chosen_logp_P)}
    return LOSSES[name](pairs, **{option: given[option] for option in options_of(LOSSES[name]) if option in given})


def divergence(args: DPOConfig) -> Divergence:
    """From log-ratios to scores."""
    if args.f_divergence_type == "alpha_divergence_trl":
        return partial(DIVERGENCES_AS_IN_TRL["alpha_divergence"], f_alpha_divergence_coef=args.f_alpha_divergence_coef)
    if args.f_divergence_type == "alpha_divergence":
        return partial(DIVERGENCES["alpha_divergence"], f_alpha_divergence_coef=args.f_alpha_divergence_coef)
    return DIVERGENCES[args.f_divergence_type]


def _count(name: str, tree: TokenTree) -> float:
    """What a loss's total is divided by, over the whole step: pairs, or in `sft_trl` the tokens of the chosen."""
    pairs_P2 = tree.pairs
    return float(tokens_of(tree)[pairs_P2[:, 0]].sum()) if name == "sft_trl" else float(len(pairs_P2))


def partners_of(pairs: ReferencedPairs) -> Tensor:
    """Of every pair, among all of them: the reference's margin of the same rank as the policy's (`aot`), the rejected one's log-ratio of
    the same rank as the chosen one's, and the reverse (`aot_unpaired`). `[P, 3]`."""
    margin_P, ref_margin_P = pairs.chosen_logp_P - pairs.rejected_logp_P, pairs.ref_chosen_logp_P - pairs.ref_rejected_logp_P
    chosen_P, rejected_P = pairs.chosen_logratio_P, pairs.rejected_logratio_P
    same = preference.same_rank
    return torch.stack([same(margin_P, ref_margin_P), same(chosen_P, rejected_P), same(rejected_P, chosen_P)], 1).detach()


def _partners(name: str, tree: TokenTree, known: Known, like_P: Tensor) -> dict[str, Any]:
    if known.partners is None or name not in RANKED:
        return {}
    names = [tree.group_ids[i] for i in tree.example_B[tree.pairs[:, 0]].tolist()]
    found = like_P.new_tensor([known.partners[one] for one in names]).view(-1, 3)
    return {"partner_P": found[:, 0]} if name == "aot" else {"partners": (found[:, 1], found[:, 2])}


class DPO(Method):
    """The method as the loop sees it. δ, and a reference that follows the policy, are its state."""

    def __init__(
        self, args: DPOConfig, *, policy: Policy | None = None, reference: Reference | None = None, here: Launch | None = None,
        aux_loss_coef: float = 0.0,
    ) -> None:  # fmt: skip
        self.args, self.policy, self.reference, self.here = args, policy, reference, here or Launch()
        self.aux_loss_coef = aux_loss_coef
        self.rewards: dict[str, tuple[float, float]] = {"chosen": (0.0, 0.0), "rejected": (0.0, 0.0)}
        """Total and count of all steps so far, for δ."""

    def look_ahead(self, trees: Iterable[TokenTree]) -> Iterable[tuple[TokenTree, Known]]:
        """Log-probs of the reference; and for ranks over the whole step those of the policy, in a forward of their own."""
        known = Known(delta=reward_shift(self.rewards["chosen"], self.rewards["rejected"]))
        if self.reference is not None:
            trees = (replace(tree, ref_logp_N=self.reference(tree)) for tree in trees)
        if set(RANKED) & set(self.args.loss_type):
            trees = list(trees)
            known = replace(known, partners=self._ranked(trees))
        return ((tree, known) for tree in trees)

    @torch.no_grad()
    def _ranked(self, trees: list[TokenTree]) -> Mapping[str, tuple[float, float, float]] | None:
        if len(trees) == self.here.world_size == 1:
            return None
        assert self.policy is not None
        mine: list[tuple[str, list[float]]] = []
        for tree in trees:
            assert tree.ref_logp_N is not None
            pairs = referenced_pairs_of(self.policy(tree).logp_N, tree.ref_logp_N, tree, ld_alpha=self.args.ld_alpha)
            columns = (pairs.chosen_logp_P, pairs.rejected_logp_P, pairs.ref_chosen_logp_P, pairs.ref_rejected_logp_P)
            names = [tree.group_ids[i] for i in tree.example_B[tree.pairs[:, 0]].tolist()]
            mine += zip(names, torch.stack(columns, 1).double().tolist(), strict=True)
        # in the order of their names, so that ties are broken alike however the step is cut
        everyone = sorted(one for part in gather(mine, self.here, "the ranks of a step's pairs") for one in part)
        logps = torch.tensor([logp for _, logp in everyone], dtype=torch.float64).view(-1, 4).unbind(1)
        ones = torch.ones(len(everyone), dtype=torch.long)
        whole = ReferencedPairs(
            chosen_logp_P=logps[0], rejected_logp_P=logps[1], ref_chosen_logp_P=logps[2], ref_rejected_logp_P=logps[3],
            chosen_tokens_P=ones, rejected_tokens_P=ones,
        )  # fmt: skip
        found = partners_of(whole).tolist()
        return {name: (a, b, c) for (name, _), (a, b, c) in zip(everyone, found, strict=True)}

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        aux = {"aux": routed(tree)} if self.aux_loss_coef else {}
        return {name: _count(name, tree) for name in self.args.loss_type} | aux

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: Known) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args, known), tree, outputs, self.aux_loss_coef)

    def after_step(self, step: int, totals: Totals) -> None:
        if "bco_pair" in self.args.loss_type:
            mine = {side: totals.get(f"rewards/{side}", (0.0, 0.0)) for side in self.rewards}
            for side, (total, count) in all_sum(mine, self.here, f"the rewards of step {step}").items():
                before = self.rewards[side]
                self.rewards[side] = (before[0] + total, before[1] + count)
        if self.reference is not None:
            self.reference.after_step(step)

    def state(self) -> dict[str, Any]:
        return {"rewards": self.rewards} if "bco_pair" in self.args.loss_type else {}

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.reference is None else self.reference.state()

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.rewards |= {side: (total, count) for side, (total, count) in state.get("rewards", {}).items()}
        if self.reference is not None:
            self.reference.restore(tensors)


class DPOTrainer(ReferenceTrainer[DPOConfig]):
    """``DPOTrainer("org/model", args=DPOConfig(), train_dataset="pairs.jsonl").train()``. See `Trainer` for the arguments."""

    config_class = DPOConfig

    def method(self, started: Started) -> DPO:
        started.policy.sum_sq = self.args.use_weighting
        return DPO(self.args, policy=started.policy, reference=started.reference, here=self.here, aux_loss_coef=started.aux_loss_coef)

    def reference(self) -> Any:
        return None if set(self.args.loss_type) <= set(UNREFERENCED) else super().reference()

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)
