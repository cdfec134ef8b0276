"""Kahneman-Tversky optimisation: learn from single completions that are called desirable or not.

    h = log π(y|x) - log π_ref(y|x)
    L = λ_D (1 - σ(β (h - z)))  where y is desirable,  λ_U (1 - σ(β (z - h)))  where it is not
                                                                    (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7)

The reference point z estimates KL(π || π_ref): it is ``max(0, mean h)`` over completions y' of other prompts, each put after x, without a
gradient. `apo_zero_unpaired` (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7) has z = 0 and needs none of that. λ is
`desirable_weight` and `undesirable_weight`; where labels are unbalanced, the report of the rows says which weights balance them (eq. 8).

What we do differently: z is a mean over the whole optimizer step; TRL 1.16's is one over each micro-batch, and needs rows in order. y' is
the completion of the next row with another prompt, so its log-prob under the reference can be kept on disk, whatever the order. A pair is
two labelled completions of one prompt, which is computed once. Evidence: `bench/parity_preference.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from burnish.config.kto import KTOConfig
from burnish.data.dataset import JoinedExamples
from burnish.data.formats import Format
from burnish.data.mismatched import MismatchedCompletions, mismatched_stream
from burnish.data.prepare import PrepareOptions
from burnish.data.tree import prune
from burnish.distributed.launch import Launch, all_sum
from burnish.models.policy import Policy
from burnish.models.reference import Reference
from burnish.models.start import Started
from burnish.ops.balance import routed, with_balance
from burnish.ops.reduce import per_branch
from burnish.ops.unpaired import LOSSES, kl_point, label_metrics
from burnish.run import Method
from burnish.trainer.reference import ReferenceTrainer
from burnish.trainer.sets import Opened
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree


def prepare_options(args: KTOConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: a prompt with one labelled branch, or of a pair with two."""
    return PrepareOptions(
        format=row_format, accepted=args.row_formats, max_length=args.max_length, truncation_mode=args.truncation_mode, unpair=True
    )


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: KTOConfig, kl: float) -> LossOut:
    """The loss over the tree's labelled branches; `kl` is the reference point of the whole step, in nats."""
    assert tree.ref_logp_N is not None
    count = _labelled(tree)
    logp_B, ref_logp_B = (per_branch(one, tree.branch_N, tree.B) for one in (outputs.logp_N, tree.ref_logp_N))
    logratio_B = logp_B - ref_logp_B
    if not count:  # a rank's filler, which has a gradient of nothing
        return LossOut(terms={"kto": Sum(total=logratio_B.sum(), count=0.0)}, metrics={})
    assert tree.label_B is not None
    label_B = tree.label_B > 0
    more: dict[str, Any] = {"kl": kl} if args.loss_type == "kto" else {}
    weights = {"desirable_weight": args.desirable_weight, "undesirable_weight": args.undesirable_weight}
    loss_B = LOSSES[args.loss_type](logratio_B, label_B, beta=args.beta, **more, **weights)
    metrics = {
        name: Sum(total=total, count=float(counted))
        for name, (total, counted) in label_metrics(logp_B.detach(), args.beta * logratio_B.detach(), label_B).items()
    }
    if args.loss_type == "kto":
        metrics["kl"] = Sum(total=loss_B.new_tensor(kl * count), count=count)
    if outputs.entropy_N is not None:
        metrics["entropy"] = Sum(total=outputs.entropy_N.detach().sum(), count=float(tree.N))
    return LossOut(terms={"kto": Sum(total=loss_B.sum(), count=count)}, metrics=metrics)


def _labelled(tree: TokenTree) -> float:
    return 0.0 if tree.label_B is None else float((tree.label_B >= 0).sum())


class KTO(Method):
    """The method as the loop sees it."""

    def __init__(
        self, args: KTOConfig, *, policy: Policy, reference: Reference, here: Launch | None = None, aux_loss_coef: float = 0.0
    ) -> None:  # fmt: skip
        self.args, self.policy, self.reference, self.here = args, policy, reference, here or Launch()
        self.aux_loss_coef = aux_loss_coef

    def look_ahead(self, trees: Iterable[TokenTree]) -> Iterable[tuple[TokenTree, float]]:
        """Log-probs of the reference for all branches; the reference point; and the trees without the branches that gave it."""
        referenced = (replace(tree, ref_logp_N=self.reference(tree)) for tree in trees)
        if self.args.loss_type != "kto":
            return ((tree, 0.0) for tree in referenced)
        kept, total, count = [], 0.0, 0.0
        for tree in referenced:
            logratio = self._of_others(tree)
            total, count = total + float(logratio.double().sum()), count + len(logratio)
            kept.append(tree if tree.label_B is None else prune(tree, tree.label_B >= 0))
        total, count = all_sum({"kl": (total, count)}, self.here, "the reference point of KTO")["kl"]
        point = float(kl_point(torch.tensor(total), max(count, 1.0)))
        return ((tree, point) for tree in kept)

    @torch.no_grad()
    def _of_others(self, tree: TokenTree) -> Tensor:
        """Log-ratios of the branches that are completions of other prompts."""
        other = tree if tree.label_B is None else prune(tree, tree.label_B < 0)
        training = self.policy.training
        self.policy.eval()
        logp_N = self.policy(other).logp_N
        self.policy.train(training)
        assert other.ref_logp_N is not None
        logratio_B = per_branch(logp_N - other.ref_logp_N, other.branch_N, other.B)
        return logratio_B[:0] if tree.label_B is None else logratio_B

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        return {"kto": _labelled(tree)} | ({"aux": routed(tree)} if self.aux_loss_coef else {})

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: float) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args, known), tree, outputs, self.aux_loss_coef)

    def after_step(self, step: int, totals: Mapping[str, tuple[float, float]]) -> None:
        self.reference.after_step(step)

    def tensors(self) -> dict[str, Tensor]:
        return self.reference.state()

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.reference.restore(tensors)


class KTOTrainer(ReferenceTrainer[KTOConfig]):
    """``KTOTrainer("org/model", args=KTOConfig(), train_dataset="labelled.jsonl").train()``. See `Trainer` for the arguments."""

    config_class = KTOConfig

    def method(self, started: Started) -> KTO:
        assert started.reference is not None
        return KTO(self.args, policy=started.policy, reference=started.reference, here=self.here, aux_loss_coef=started.aux_loss_coef)

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)

    def arranged(self, examples: JoinedExamples, training: bool) -> Any:
        """Every example beside a completion of another prompt. Raises DataError where all labels or all prompts are the same."""
        if training:
            examples.check_both_labels()
        return MismatchedCompletions(examples, self.args.max_length) if self.args.loss_type == "kto" else examples

    def arranged_stream(self, opened: Opened) -> Opened:
        return mismatched_stream(opened, self.args.max_length) if self.args.loss_type == "kto" else opened
