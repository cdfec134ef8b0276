"""Binary classifier optimisation: tell desirable completions from others, by a classifier whose logit is the implicit reward.

    r = β (log π(y|x) - log π_ref(y|x))
    L = -log σ(r - δ)  where y is desirable,  -log σ(-(r - δ))  where it is not      (Jung et al. 2024, arXiv:2404.04656, eq. 8 and 10)

The reward shift δ is half the sum of the two labels' mean rewards, over all steps before this one; it is part of the checkpoint.

What we do differently: TRL's δ is one mean over all completions, which follows the more frequent label: `bco_trl`. Its re-weighting by
a density ratio of prompts (UDM) is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from burnish.config.bco import BCOConfig
from burnish.data.dataset import JoinedExamples
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.distributed.launch import Launch, all_sum
from burnish.models.reference import Reference
from burnish.models.start import Started
from burnish.ops.balance import routed, with_balance
from burnish.ops.reduce import Totals, per_branch
from burnish.ops.unpaired import bco_loss, label_metrics, reward_shift
from burnish.run import Method
from burnish.trainer.reference import ReferenceTrainer
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree

LOSSES: dict[str, Callable[..., Tensor]] = {"bco": bco_loss, "bco_trl": bco_loss}
"""Both are the same function of δ."""
REWARDS = ("rewards/chosen", "rewards/rejected")


def prepare_options(args: BCOConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: a prompt with one labelled branch, or of a pair with two."""
    return PrepareOptions(
        format=row_format, accepted=args.row_formats, max_length=args.max_length, truncation_mode=args.truncation_mode, unpair=True
    )


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: BCOConfig, delta: float) -> LossOut:
    """The loss over the tree's labelled branches; `delta` is in units of reward."""
    assert tree.ref_logp_N is not None
    logp_B, ref_logp_B = (per_branch(one, tree.branch_N, tree.B) for one in (outputs.logp_N, tree.ref_logp_N))
    logratio_B = logp_B - ref_logp_B
    if tree.label_B is None:  # a rank's filler, which has a gradient of nothing
        return LossOut(terms={"bco": Sum(total=logratio_B.sum(), count=0.0)}, metrics={})
    label_B, count = tree.label_B > 0, float(tree.B)
    loss_B = LOSSES[args.loss_type](logratio_B, label_B, beta=args.beta, delta=delta)
    metrics = {
        name: Sum(total=total, count=float(counted))
        for name, (total, counted) in label_metrics(logp_B.detach(), args.beta * logratio_B.detach(), label_B).items()
    }
    metrics["delta"] = Sum(total=loss_B.new_tensor(delta * count), count=count)
    if outputs.entropy_N is not None:
        metrics["entropy"] = Sum(total=outputs.entropy_N.detach().sum(), count=float(tree.N))
    return LossOut(terms={"bco": Sum(total=loss_B.sum(), count=count)}, metrics=metrics)


class BCO(Method):
    """The method as the loop sees it. The rewards of all steps so far are its state."""

    def __init__(self, args: BCOConfig, *, reference: Reference, here: Launch | None = None, aux_loss_coef: float = 0.0) -> None:
        self.args, self.reference, self.here, self.aux_loss_coef = args, reference, here or Launch(), aux_loss_coef
        self.rewards: dict[str, tuple[float, float]] = dict.fromkeys(REWARDS, (0.0, 0.0))

    def look_ahead(self, trees: Iterable[TokenTree]) -> Iterable[tuple[TokenTree, float]]:
        """Log-probs of the reference, and δ."""
        delta = reward_shift(*self.rewards.values(), pooled=self.args.loss_type == "bco_trl")
        return ((replace(tree, ref_logp_N=self.reference(tree)), delta) for tree in trees)

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        labelled = 0.0 if tree.label_B is None else float(tree.B)
        return {"bco": labelled} | ({"aux": routed(tree)} if self.aux_loss_coef else {})

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: float) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args, known), tree, outputs, self.aux_loss_coef)

    def after_step(self, step: int, totals: Totals) -> None:
        mine = {name: totals.get(name, (0.0, 0.0)) for name in REWARDS}
        for name, (total, count) in all_sum(mine, self.here, f"the rewards of step {step}").items():
            self.rewards[name] = (self.rewards[name][0] + total, self.rewards[name][1] + count)
        self.reference.after_step(step)

    def state(self) -> dict[str, Any]:
        return {"rewards": self.rewards}

    def tensors(self) -> dict[str, Tensor]:
        return self.reference.state()

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.rewards = {name: (total, count) for name, (total, count) in state["rewards"].items()}
        self.reference.restore(tensors)


class BCOTrainer(ReferenceTrainer[BCOConfig]):
    """``BCOTrainer("org/model", args=BCOConfig(), train_dataset="labelled.jsonl").train()``. See `Trainer` for the arguments."""

    config_class = BCOConfig

    def method(self, started: Started) -> BCO:
        assert started.reference is not None
        return BCO(self.args, reference=started.reference, here=self.here, aux_loss_coef=started.aux_loss_coef)

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)

    def arranged(self, examples: JoinedExamples, training: bool) -> Any:
        """Raises DataError where all labels are the same."""
        if training:
            examples.check_both_labels()
        return examples
