"""Contrastive preference optimisation and its kin: pairs without a reference, beside the likelihood of the chosen completion.

    sigmoid   -log σ(β (log π(y_c|x) - log π(y_r|x)))                              (CPO, Xu et al. 2024, arXiv:2401.08417, eq. 3)
    simpo     -log σ(β (log π(y_c|x)/|y_c| - log π(y_r|x)/|y_r|) - γ)              (SimPO, Meng et al. 2024, arXiv:2405.14734, eq. 6)

each plus `cpo_alpha` times -log π(y_c|x) / |y_c|. `alpha` turns log-probs into AlphaPO's rewards (Gupta et al. 2025, arXiv:2501.03884).
SimPO is ``loss_type="simpo", cpo_alpha=0``. All losses are in `ops/reference_free.py`.

What we do differently from TRL 1.16: in the likelihood term each completion counts alike; TRL's counts tokens alike, in a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from burnish.config.cpo import CPOConfig
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.models.start import Started
from burnish.ops.balance import routed, with_balance
from burnish.ops.pairs import options_of, pair_metrics, pairs_of, reward_sums
from burnish.ops.preference import sft_loss
from burnish.ops.reference_free import LOSSES
from burnish.run import Method
from burnish.trainer import Trainer
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree


def prepare_options(args: CPOConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: a prompt with two branches, the chosen one first, of which every token is trained."""
    return PrepareOptions(format=row_format, accepted=args.row_formats, max_length=args.max_length, truncation_mode=args.truncation_mode)


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: CPOConfig) -> LossOut:
    """Both terms over the tree's P pairs; rewards are β times the log-prob that the loss compares, as in TRL."""
    pairs = pairs_of(outputs.logp_N, tree)
    count = float(len(pairs.chosen_logp_P))
    given: dict[str, Any] = {"beta": args.beta, "label_smoothing": args.label_smoothing, "alpha": args.alpha}
    given["simpo_gamma"] = args.simpo_gamma
    loss = LOSSES[args.loss_type]
    loss_P = loss(pairs, **{name: given[name] for name in options_of(loss)})
    terms = {"cpo": Sum(total=loss_P.sum(), count=count)}
    average = args.loss_type in ("simpo", "ipo")
    lengths = (pairs.chosen_tokens_P, pairs.rejected_tokens_P) if average else (1, 1)
    metrics = pair_metrics(tree, outputs)
    metrics |= reward_sums(args.beta * pairs.chosen_logp_P / lengths[0], args.beta * pairs.rejected_logp_P / lengths[1])
    if args.cpo_alpha:
        nll_P = sft_loss(pairs)
        terms["nll"] = Sum(total=args.cpo_alpha * nll_P.sum(), count=count)
        metrics["nll_loss"] = Sum(total=nll_P.detach().sum(), count=count)
    return LossOut(terms=terms, metrics=metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class CPO(Method):
    """The method as the loop sees it."""

    args: CPOConfig
    aux_loss_coef: float = 0.0

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        pairs = float(len(tree.pairs))
        nll, aux = {"nll": pairs} if self.args.cpo_alpha else {}, {"aux": routed(tree)} if self.aux_loss_coef else {}
        return {"cpo": pairs, **nll, **aux}

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: None) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args), tree, outputs, self.aux_loss_coef)


class CPOTrainer(Trainer[CPOConfig]):
    """``CPOTrainer("org/model", CPOConfig(), train_dataset="pairs.jsonl").train()``. See `Trainer` for the arguments."""

    config_class = CPOConfig

    def method(self, started: Started) -> CPO:
        return CPO(args=self.args, aux_loss_coef=started.aux_loss_coef)

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)
