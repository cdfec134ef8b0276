"""ProFit: supervised fine-tuning on those tokens alone that the model finds likely enough.

    M_t = [sg(π(y_t | y_<t)) > τ]                                    (Liu et al. 2026, arXiv:2601.09195v3, eq. 4)
    L   = Σ_t -M_t log π(y_t | y_<t) / N                             (eq. 5)

π is the policy as it is at this step, sg stops the gradient, τ is `prob_threshold`. N counts all trained tokens, those that the mask leaves
out too: leaving tokens out makes the gradient smaller, not an average over fewer. `threshold_direction="lower"` turns the inequality
around, which is the paper's control (figure 4a).

What we do differently: the paper divides by each answer's length, its code and we by the tokens of the whole step. A token of
probability τ is left out, as eq. 4 has it; their code keeps it. We log `kept_share`: a mask that leaves out everything trains nothing.
Evidence: README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.experimental.profit.config import ProFitConfig
from burnish.methods import sft
from burnish.models.start import Started
from burnish.types import LossOut, Sum, TokenOutputs, TokenTree

# Rows become examples as in SFT.


def mask(logp_N: Tensor, threshold: float, direction: str) -> Tensor:
    """M_t (eq. 4): `[N]` log-probs in, `[N]` booleans out. Without a gradient."""
    return COMPARE[direction](logp_N.detach().exp(), threshold)


COMPARE: dict[str, Callable[[Tensor, float], Tensor]] = {"higher": torch.gt, "lower": torch.lt}
"""`threshold_direction` → which probabilities are kept."""


def profit_loss(logp_N: Tensor, mask_N: Tensor) -> Tensor:
    """``-M log p`` (eq. 5), before the division: `[N]` in, `[N]` out, in nats; exactly 0, with no gradient, where the mask is False."""
    return torch.where(mask_N, -logp_N, 0.0)


def loss_and_metrics(tree: TokenTree, outputs: TokenOutputs, args: ProFitConfig, *, aux_loss_coef: float = 0.0) -> LossOut:
    """SFT's, with the tokens that the mask keeps in the place of all. Metrics stay means over all trained tokens."""
    plain = sft.loss_and_metrics(tree, outputs, args, aux_loss_coef=aux_loss_coef)
    count, mask_N = float(tree.N), mask(outputs.logp_N, args.prob_threshold, args.threshold_direction)
    loss = Sum(total=profit_loss(outputs.logp_N, mask_N).sum(), count=count)
    kept = Sum(total=mask_N.sum(), count=count)
    return LossOut(terms={**plain.terms, "loss": loss}, metrics={**plain.metrics, "kept_share": kept})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProFit(sft.SFT):
    """The method as the loop sees it."""

    args: ProFitConfig

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs, known: None) -> LossOut:
        return loss_and_metrics(tree, outputs, self.args, aux_loss_coef=self.aux_loss_coef)


class ProFitTrainer(sft.SFTTrainer):
    """``ProFitTrainer("org/model", train_dataset="train.jsonl").train()``. See `Trainer` for the arguments."""

    args: ProFitConfig
    config_class = ProFitConfig

    def method(self, started: Started) -> ProFit:
        return ProFit(args=self.args, aux_loss_coef=started.aux_loss_coef)


TRAINER = ProFitTrainer
"""What `burnish experimental profit` runs."""
