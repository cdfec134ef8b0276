"""Supervised fine-tuning: raise the log-probability of the tokens that a good answer has.

    nll   L = Σ_t -log π(y_t | y_<t) / N                                     (maximum likelihood)
    dft   L = Σ_t -sg(π(y_t | y_<t)) log π(y_t | y_<t) / N                   (Wu et al. 2025, arXiv:2508.05629, eq. 9)

N is the number of trained tokens in the whole optimizer step, over all micro-batches and ranks: a token weighs the same
whatever row, micro-batch or process it is in. Which tokens are trained is decided when rows become examples
(`completion_only_loss`, `assistant_only_loss`), with the meaning that TRL gives these options.

What we do differently: rows are never padded and never see each other, so there is no packing option to choose.
Evidence: `bench/parity_sft.py` (same losses and gradient norms as TRL 1.16).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from burnish.config.sft import SFTConfig
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.models.start import Started
from burnish.ops.balance import routed, with_balance
from burnish.ops.likelihood import dft_loss, nll_loss
from burnish.run import Method
from burnish.trainer import Trainer
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"nll": nll_loss, "dft": dft_loss}
"""Name → function from log-probs `[N]` to losses `[N]`."""


def prepare_options(args: SFTConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: one branch each, with the trained tokens that the options say."""
    return PrepareOptions(
        format=row_format,
        accepted=args.row_formats,
        text_field=args.dataset_text_field,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        completion_only_loss=args.completion_only_loss,
        assistant_only_loss=args.assistant_only_loss,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SFT(Method):
    """The method as the loop sees it."""

    args: SFTConfig
    aux_loss_coef: float = 0.0

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        return {"loss": tree.N, "aux": routed(tree)} if self.aux_loss_coef else {"loss": tree.N}

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: None) -> LossOut:
        return loss_and_metrics(tree, outputs, self.args, aux_loss_coef=self.aux_loss_coef)


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: SFTConfig, *, aux_loss_coef: float = 0.0) -> LossOut:
    """The loss over the tree's N trained tokens; metrics are means over the same tokens."""
    count = float(tree.N)
    terms = {"loss": Sum(total=LOSSES[args.loss_type](outputs.logp_N).sum(), count=count)}
    metrics = {"nll": Sum(total=-outputs.logp_N.detach().sum(), count=count)}
    if outputs.entropy_N is not None:
        metrics["entropy"] = Sum(total=outputs.entropy_N.detach().sum(), count=count)
    if outputs.top1_N is not None:
        metrics["mean_token_accuracy"] = Sum(total=outputs.top1_N.sum(), count=count)
    return with_balance(LossOut(terms=terms, metrics=metrics), tree, outputs, aux_loss_coef)


class SFTTrainer(Trainer[SFTConfig]):
    """``SFTTrainer("org/model", train_dataset="train.jsonl").train()``. See `Trainer` for the arguments."""

    config_class = SFTConfig

    def method(self, started: Started) -> SFT:
        return SFT(args=self.args, aux_loss_coef=started.aux_loss_coef)

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)
