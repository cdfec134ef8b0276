"""A causal model as a function from a token tree to something about each of its trained tokens; and the policy, which gives log-probs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from burnish.models.attention import tree_layout
from burnish.models.head import head_of
from burnish.ops.logprobs import chunked_logprobs, dense_logprobs
from burnish.types import TokenOutputs, TokenTree

Columns = tuple[Tensor, ...]
"""Tensors with an entry for each trained token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """How a model is run. The probe chooses; the plain ways work for any causal model."""

    attention: Literal["tree", "branches"] = "tree"
    """One flat row through tree attention, or every branch alone through the model's own attention."""
    head: Literal["chunked", "model"] = "chunked"
    """The head on the trained tokens alone, or the logits that the model itself returns (needs "branches")."""
    backend: str | None = None
    """Tree attention's backend; None: by device."""


class TreeModel(nn.Module):
    """Wraps a transformers model that attends causally (or a PEFT model). What it says of a token is up to `Policy`, and to `Scorer`.

    `compute_dtype` other than the weights' own runs the model under autocast. `aux_loss` asks a mixture-of-experts
    model for its load-balancing loss.
    """

    def __init__(self, model: Any, *, paths: Paths | None = None, compute_dtype: torch.dtype | None = None, aux_loss: bool = False) -> None:
        super().__init__()
        self.model = model
        self.paths = paths or Paths()
        self.compute_dtype = compute_dtype
        self.aux_loss = aux_loss

    @property
    def causal_model(self) -> Any:
        """The transformers model inside, with its adapters live where there are any."""
        from peft import PeftModel

        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def forward(self, tree: TokenTree) -> Any:
        with self.autocast():
            return self.outputs(*(self._whole(tree) if self.paths.attention == "tree" else self._by_branch(tree)))

    def logits(self, ids: Tensor) -> Tensor:
        """The model's own, of whole rows `[rows, T]`, as transformers computes them: `[rows, T, V]`, or a classifier's."""
        return self.model(ids, use_cache=False).logits

    # What is said of each trained token

    def read_N(self, tree: TokenTree) -> Tensor:
        """Whose hidden states the head is applied to."""
        raise NotImplementedError

    def head(self, hidden_N: Tensor, target_N: Tensor) -> Columns:
        raise NotImplementedError

    def own_head(self, ids: Tensor, read: Tensor, target: Tensor) -> tuple[Any, Columns]:
        """The same by the model's own forward, of one branch alone; and what that gave beside."""
        raise NotImplementedError

    def outputs(self, columns: Columns, aux_loss: Tensor | None) -> Any:
        """The record of them."""
        raise NotImplementedError

    # How the model is run

    def autocast(self) -> AbstractContextManager[Any]:
        """In which the model runs: of `compute_dtype`, where that is half precision and not the weights' own."""
        if self.compute_dtype not in {torch.bfloat16, torch.float16} or self.compute_dtype == next(self.model.parameters()).dtype:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    def _whole(self, tree: TokenTree) -> tuple[Columns, Tensor | None]:
        with tree_layout(tree, self.paths.backend):
            out = self.backbone(tree.token_ids_T, tree.position_T)
        return self.head(out.last_hidden_state[0][self.read_N(tree)], tree.target_N), self._aux_loss(out)

    def backbone(self, token_ids: Tensor, positions: Tensor) -> Any:
        """The model without its head."""
        more = {"output_router_logits": True} if self.aux_loss else {}
        return self.causal_model.base_model(input_ids=token_ids[None], position_ids=positions[None], use_cache=False, **more)

    def _by_branch(self, tree: TokenTree) -> tuple[Columns, Tensor | None]:
        """Runs the path to every node that holds a target, each alone. A target's source may be its parent's last token."""
        parts, order, aux, tokens = [], [], [], 0
        read_N = self.read_N(tree)
        for i, node in enumerate(tree.nodes):
            mine = ((tree.index_N >= node.start) & (tree.index_N < node.end)).nonzero()[:, 0]
            if not len(mine) and (tree.N or i):
                continue  # a tree with no target at all still runs once, so that every parameter has a gradient
            path = [i]
            while tree.nodes[path[0]].parent >= 0:
                path.insert(0, tree.nodes[path[0]].parent)
            flat = torch.cat([torch.arange(tree.nodes[p].start, tree.nodes[p].end, device=tree.token_ids_T.device) for p in path])
            read = torch.searchsorted(flat, read_N[mine])
            out, result = self._branch(tree.token_ids_T[flat], tree.position_T[flat], read, tree.target_N[mine])
            parts.append(result)
            order.append(mine)
            if (loss := self._aux_loss(out)) is not None:
                aux.append(loss * len(flat))
                tokens += len(flat)
        back = torch.cat(order).argsort()
        columns = tuple(torch.cat(column)[back] for column in zip(*parts, strict=True))
        return columns, torch.stack(aux).sum() / tokens if aux else None

    def _branch(self, ids: Tensor, positions: Tensor, read: Tensor, target: Tensor) -> tuple[Any, Columns]:
        if self.paths.head == "model":
            return self.own_head(ids, read, target)
        out = self.backbone(ids, positions)
        return out, self.head(out.last_hidden_state[0][read], target)

    def _aux_loss(self, out: Any) -> Tensor | None:
        """Switch Transformer's load-balancing loss (Fedus et al. 2021, eq. 4), as the model's own module computes it."""
        if not self.aux_loss:
            return None
        model = self.causal_model
        config = model.config.get_text_config()
        experts = config.__dict__.get("num_experts") or config.__dict__.get("num_local_experts") or config.n_routed_experts
        balance = sys.modules[type(model).__module__].load_balancing_loss_func
        return balance(out.router_logits, experts, config.num_experts_per_tok)


class Policy(TreeModel):
    """Wraps a causal language model; `forward(tree)` gives `TokenOutputs` for the N trained tokens. See `TreeModel` for the options."""

    def __init__(
        self,
        model: Any,
        *,
        paths: Paths | None = None,
        temperature: float = 1.0,
        compute_dtype: torch.dtype | None = None,
        aux_loss: bool = False,
    ) -> None:
        super().__init__(model, paths=paths, compute_dtype=compute_dtype, aux_loss=aux_loss)
        self.temperature = temperature
        self.sum_sq = False
        """Whether the head is asked for ``log Σ p²`` as well."""

    def read_N(self, tree: TokenTree) -> Tensor:
        return tree.source_N

    def head(self, hidden_N: Tensor, target_N: Tensor) -> Columns:
        return chunked_logprobs(head_of(self.causal_model, hidden_N, temperature=self.temperature), target_N, sum_sq=self.sum_sq)

    def own_head(self, ids: Tensor, read: Tensor, target: Tensor) -> tuple[Any, Columns]:
        more = {"output_router_logits": True} if self.aux_loss else {}
        out = self.causal_model(input_ids=ids[None], use_cache=False, **more)
        return out, dense_logprobs(out.logits[0][read] / self.temperature, target, sum_sq=self.sum_sq)

    def outputs(self, columns: Columns, aux_loss: Tensor | None) -> TokenOutputs:
        logp, entropy, top1, *sum_sq = columns
        return TokenOutputs(logp_N=logp, entropy_N=entropy, top1_N=top1, log_sum_sq_N=sum_sq[0] if sum_sq else None, aux_loss=aux_loss)
