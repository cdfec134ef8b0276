"""Reward models: one number for a completion, such that the chosen of a pair has the larger one.

    L = -log σ(r(x, y_c) - r(x, y_r) - m)                       (Ouyang et al. 2022, arXiv:2203.02155, eq. 1;
                                                                 with a margin m, Llama 2, arXiv:2307.09288, eq. 2)
      + center_rewards_coefficient (r(x, y_c) + r(x, y_r))²     (Eisenstein et al. 2023, arXiv:2312.09244, eq. 2)

r is a linear head on the last hidden state of the completion's last token, its end of turn: what `AutoModelForSequenceClassification` with
one label gives, which reads the model that is saved. m is the row's column "margin", and 0 where there is none.

What we do differently: a pair's prompt is computed once, and long rows follow `truncation_mode` as everywhere else. Evaluation says, beside
accuracy, how far the rewards can be believed: the Brier score, the share that is right among pairs of like confidence, and how the margins
are spread. Evidence: `bench/parity_preference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from burnish.config.reward import RewardConfig
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.models.start import Started
from burnish.ops.balance import routed, with_balance
from burnish.ops.bradley_terry import bradley_terry_loss, centring_loss, reliability
from burnish.ops.reduce import per_branch
from burnish.run import Method
from burnish.trainer import Trainer
from burnish.types import LossOut, Sum, TokenScores, TokenTree

LOSSES: dict[str, Callable[..., Tensor]] = {"bradley_terry": bradley_terry_loss}
"""From the rewards of P pairs to `[P]`."""


def prepare_options(args: RewardConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: a prompt with two branches, the chosen one first, of which the last token is read."""
    return PrepareOptions(
        format=row_format, accepted=args.row_formats, max_length=args.max_length, truncation_mode=args.truncation_mode, targets="last"
    )  # fmt: skip


def loss_and_metrics(tree: TokenTree, outputs: TokenScores, args: RewardConfig) -> LossOut:
    """Both terms over the tree's P pairs; in an evaluation, which has no gradient, also how far the rewards can be believed."""
    reward_B = per_branch(outputs.score_NK[:, 0], tree.branch_N, tree.B)
    chosen_P, rejected_P = reward_B[tree.pairs].unbind(1)
    margin_P = 0.0 if tree.margin_E is None else tree.margin_E[tree.example_B[tree.pairs[:, 0]]]
    count = float(len(chosen_P))
    terms = {"bradley_terry": Sum(total=bradley_terry_loss(chosen_P, rejected_P, margin_P).sum(), count=count)}
    if args.center_rewards_coefficient is not None:
        centred = args.center_rewards_coefficient * centring_loss(chosen_P, rejected_P).sum()
        terms["centring"] = Sum(total=centred, count=count)
    difference_P = (chosen_P - rejected_P).detach()
    metrics = {
        "accuracy": Sum(total=(difference_P > 0).sum(), count=count),
        "margin": Sum(total=difference_P.sum(), count=count),
        "mean_reward": Sum(total=(chosen_P + rejected_P).detach().sum(), count=2 * count),
    }
    if not outputs.score_NK.requires_grad:
        metrics |= reliability(difference_P)
    return LossOut(terms=terms, metrics=metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward(Method):
    """The method as the loop sees it."""

    args: RewardConfig
    aux_loss_coef: float = 0.0

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        pairs = float(len(tree.pairs))
        centring = {} if self.args.center_rewards_coefficient is None else {"centring": pairs}
        return {"bradley_terry": pairs, **centring, **({"aux": routed(tree)} if self.aux_loss_coef else {})}

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenScores, known: None) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs, self.args), tree, outputs, self.aux_loss_coef)


class RewardTrainer(Trainer[RewardConfig]):
    """``RewardTrainer("org/model", RewardConfig(), train_dataset="pairs.jsonl").train()``. See `Trainer` for the arguments.

    `model` is any causal model, whose head is new then, or a classifier of sequences with one label.
    """

    config_class = RewardConfig

    def method(self, started: Started) -> Reward:
        return Reward(args=self.args, aux_loss_coef=started.aux_loss_coef)

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)
