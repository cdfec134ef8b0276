"""The scorer: a causal model whose head gives a score to each trained token. Reward models, and process reward models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from burnish.models.load import SCORE_HEADS
from burnish.models.policy import Columns, TreeModel
from burnish.types import TokenScores, TokenTree


class Scorer(TreeModel):
    """Wraps a transformers classifier of sequences or of tokens; `forward(tree)` gives `TokenScores` for the N trained tokens.

    A token's score is the head's output at the token itself, which has seen everything up to it: what transformers gives for a row
    that ends there. See `TreeModel` for the options.
    """

    def read_N(self, tree: TokenTree) -> Tensor:
        return tree.index_N

    def head(self, hidden_N: Tensor, target_N: Tensor) -> Columns:
        parts = dict[str, nn.Module](self.causal_model.named_children())
        if "dropout" in parts:
            hidden_N = parts["dropout"](hidden_N)
        (head,) = (part for name, part in parts.items() if name in SCORE_HEADS)
        return (_fine(head(hidden_N)),)

    def own_head(self, ids: Tensor, read: Tensor, target: Tensor) -> tuple[Any, Columns]:
        """A classifier of sequences says only what it thinks of a row's last token, and runs once for each token that is read."""
        logits = self._own_logits(ids)
        if logits.ndim == 3:
            score = logits[0][read]
        else:
            score = torch.cat([logits[:0], *(logits if i + 1 == len(ids) else self._own_logits(ids[: i + 1]) for i in read.tolist())])
        out = self.backbone(ids, torch.arange(len(ids), device=ids.device)) if self.aux_loss else None  # which alone tells of routers
        return out, (_fine(score),)

    def _own_logits(self, ids: Tensor) -> Tensor:
        return self.causal_model(input_ids=ids[None], use_cache=False).logits

    def outputs(self, columns: Columns, aux_loss: Tensor | None) -> TokenScores:
        return TokenScores(score_NK=columns[0], aux_loss=aux_loss)


def _fine(score: Tensor) -> Tensor:
    """In float32 at least."""
    return score.to(torch.promote_types(score.dtype, torch.float32))
