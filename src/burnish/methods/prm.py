"""Process reward models: whether each step of a solution is right, read at the step's last token.

    L = -Σ_s log p(label_s | x, y_≤s) / S                        (Lightman et al. 2023, arXiv:2305.20050, section 2.6;
                                                                 Uesato et al. 2022, arXiv:2211.14275, section 2.4)

p is a softmax over two classes, of a linear head on the last hidden state of the step's last token, its separator: what
`AutoModelForTokenClassification` with two labels gives, which reads the model that is saved. S counts the steps of the whole optimizer
step. With `train_on_last_step_only` a solution has one label, its last step's: an outcome reward model (Cobbe et al. 2021,
arXiv:2110.14168).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.config.prm import PRMConfig
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.models.start import Started
from burnish.ops.balance import routed, with_balance
from burnish.ops.bradley_terry import step_loss
from burnish.run import Method
from burnish.trainer import Trainer
from burnish.types import LossOut, Sum, TokenScores, TokenTree

LOSSES: dict[str, Callable[..., Tensor]] = {"step": step_loss}
"""From scores `[N, 2]` and labels `[N]` to `[N]`."""


def prepare_options(args: PRMConfig, row_format: Format) -> PrepareOptions:
    """How rows become examples: one branch, of which the last token of each step is read."""
    return PrepareOptions(
        format=row_format,
        accepted=args.row_formats,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        step_separator=args.step_separator,
        train_on_last_step_only=args.train_on_last_step_only,
    )


def loss_and_metrics(tree: TokenTree, outputs: TokenScores) -> LossOut:
    """The loss over the tree's N steps, and the share of them that the larger score is right about."""
    label_N = outputs.score_NK.new_zeros(0, dtype=torch.long) if tree.label_N is None else tree.label_N.long()
    count = float(tree.N)
    terms = {"step": Sum(total=step_loss(outputs.score_NK, label_N).sum(), count=count)}
    right = (outputs.score_NK.detach().argmax(1) == label_N).sum()
    chance = F.softmax(outputs.score_NK.detach(), 1)[:, 1].sum()
    metrics = {"accuracy": Sum(total=right, count=count), "mean_reward": Sum(total=chance, count=count)}
    return LossOut(terms=terms, metrics=metrics | {"label_mean": Sum(total=label_N.sum(), count=count)})


@dataclass(frozen=True, slots=True, kw_only=True)
class PRM(Method):
    """The method as the loop sees it."""

    args: PRMConfig
    aux_loss_coef: float = 0.0

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        return {"step": float(tree.N)} | ({"aux": routed(tree)} if self.aux_loss_coef else {})

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenScores, known: None) -> LossOut:
        return with_balance(loss_and_metrics(tree, outputs), tree, outputs, self.aux_loss_coef)


class PRMTrainer(Trainer[PRMConfig]):
    """``PRMTrainer("org/model", PRMConfig(), train_dataset="steps.jsonl").train()``. See `Trainer` for the arguments.

    `model` is any causal model, whose head is new then, or a classifier of tokens with two labels.
    """

    config_class = PRMConfig

    def method(self, started: Started) -> PRM:
        return PRM(args=self.args, aux_loss_coef=started.aux_loss_coef)

    def prepare_options(self, row_format: Format) -> PrepareOptions:
        return prepare_options(self.args, row_format)
