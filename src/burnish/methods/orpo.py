"""Odds ratio preference optimisation: fine-tune on the chosen completion and push the odds of the rejected one down. No reference.

    L = -log π(y_c|x) / |y_c|  -  λ log σ(log odds(y_c|x) - log odds(y_r|x))       (Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7)

with odds(y) = p / (1 - p) and p the geometric mean of a completion's token probabilities (eq. 4). TRL's name of λ is `beta`.

What we do differently from TRL 1.16: the likelihood term is of the completion, each completion counting alike, as in the paper (eq. 2);
TRL's is of prompt and completion, over the tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from burnish.config.orpo import ORPOConfig
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.models.start import Started
from burnish.ops.balance import routed, with_balance
from burnish.ops.pairs import pair_metrics, pairs_of, reward_sums
from burnish.ops.preference import Pairs, sft_loss
from burnish.ops.reference_free import log_odds_ratio, odds_ratio_loss
from burnish.run import Method
from burnish.trainer import Trainer
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree

LOSSES: dict[str, Callable[[Pairs], Tensor]] = {"orpo": odds_ratio_loss}
"""The term beside the likelihood, from P pairs to `[P]`."""


def prepare_options(args: ORPOConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: a prompt with two branches, the chosen one first, of which every token is trained."""
    return PrepareOptions(format=row_format, accepted=args.row_formats, max_length=args.max_length, truncation_mode=args.truncation_mode)


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: ORPOConfig) -> LossOut:
    """Both terms over the tree's P pairs; rewards are λ times the mean log-prob of a token, as in TRL."""
    pairs = pairs_of(outputs.logp_N, tree)
    count = float(len(pairs.chosen_logp_P))
    nll_P, odds_P, ratio_P = sft_loss(pairs), odds_ratio_loss(pairs), log_odds_ratio(pairs).detach()
    terms = {"nll": Sum(total=nll_P.sum(), count=count), "odds": Sum(total=args.beta * odds_P.sum(), count=count)}
    metrics = pair_metrics(tree, outputs) | reward_sums(
        args.beta * pairs.chosen_logp_P / pairs.chosen_tokens_P, args.beta * pairs.rejected_logp_P / pairs.rejected_tokens_P
    )
    metrics |= {
        "nll_loss": Sum(total=nll_P.detach().sum(), count=count),
        "log_odds_chosen": Sum(total=ratio_P.sum(), count=count),
        "log_odds_ratio": Sum(total=-odds_P.detach().sum(), count=count),
    }
    return LossOut(terms=terms, metrics=metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class ORPO(Method):
    """The method as the loop sees it."""

    args: ORPOConfig
    aux_loss_coef: float = 0.0

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        pairs = float(len(tree.pairs))
        return {"nll": pairs, "odds": pairs} | ({"aux": routed(tree)} if self.aux_loss_coef else {})

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: None) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args), tree, outputs, self.aux_loss_coef)


class ORPOTrainer(Trainer[ORPOConfig]):
    """``ORPOTrainer("org/model", ORPOConfig(), train_dataset="pairs.jsonl").train()``. See `Trainer` for the arguments."""

    config_class = ORPOConfig

    def method(self, started: Started) -> ORPO:
        return ORPO(args=self.args, aux_loss_coef=started.aux_loss_coef)

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)
