"""The policy: a causal language model as a function from a token tree to the log-probs of its trained tokens."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from burnish.models.attention import tree_layout
from burnish.models.head import head_of
from burnish.ops.logprobs import Read, chunked_logprobs, dense_logprobs
from burnish.types import TokenOutputs, TokenTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """How a model is run. The probe chooses; the plain ways work for any causal model."""

    attention: Literal["tree", "branches"] = "tree"
    """One flat row through tree attention, or every branch alone through the model's own attention."""
    head: Literal["chunked", "model"] = "chunked"
    """Chunks of the vocabulary, or the logits that the model itself returns (needs "branches")."""
    backend: str | None = None
    """Tree attention's backend; None: by device."""


class Policy(nn.Module):
    """Wraps a causal model (or a PEFT model); `forward(tree)` gives `TokenOutputs` for its N trained tokens.

    `compute_dtype` other than the weights' own runs the model under autocast. `aux_loss` asks a mixture-of-experts
    model for its load-balancing loss, `sum_sq` the head for ``log Σ p²``.
    """

    def __init__(
        self,
        model: Any,
        *,
        paths: Paths | None = None,
        temperature: float = 1.0,
        compute_dtype: torch.dtype | None = None,
        aux_loss: bool = False,
        sum_sq: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.paths = paths or Paths()
        self.temperature = temperature
        self.compute_dtype = compute_dtype
        self.aux_loss = aux_loss
        self.sum_sq = sum_sq

    @property
    def causal_model(self) -> Any:
        """The transformers model inside, with its adapters live where there are any."""
        from peft import PeftModel

        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def forward(self, tree: TokenTree) -> TokenOutputs:
        with self._autocast():
            if self.paths.attention == "tree":
                return self._whole(tree)
            return self._by_branch(tree)

    def logits(self, ids: Tensor) -> Tensor:
        """The model's own, of whole rows `[rows, T]`, as transformers computes them: `[rows, T, V]`."""
        return self.model(ids, use_cache=False).logits

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.compute_dtype is None or self.compute_dtype == next(self.model.parameters()).dtype:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    def _whole(self, tree: TokenTree) -> TokenOutputs:
        with tree_layout(tree, self.paths.backend):
            out = self._backbone(tree.token_ids_T, tree.position_T)
        logp, entropy, top1, sum_sq = self._chunked(out.last_hidden_state[0][tree.source_N], tree.target_N)
        return TokenOutputs(logp_N=logp, entropy_N=entropy, top1_N=top1, log_sum_sq_N=sum_sq, aux_loss=self._aux_loss(out))

    def _backbone(self, token_ids: Tensor, positions: Tensor) -> Any:
        more = {"output_router_logits": True} if self.aux_loss else {}
        return self.causal_model.base_model(input_ids=token_ids[None], position_ids=positions[None], use_cache=False, **more)

    def _chunked(self, hidden_N: Tensor, target_N: Tensor) -> Read:
        return chunked_logprobs(head_of(self.causal_model, hidden_N, temperature=self.temperature), target_N, sum_sq=self.sum_sq)

    def _by_branch(self, tree: TokenTree) -> TokenOutputs:
        """Runs the path to every node that holds a target, each alone. A target's source may be its parent's last token."""
        parts, order, aux, tokens = [], [], [], 0
        for i, node in enumerate(tree.nodes):
            mine = ((tree.index_N >= node.start) & (tree.index_N < node.end)).nonzero()[:, 0]
            if not len(mine) and (tree.N or i):
                continue  # a tree with no target at all still runs once, so that every parameter has a gradient
            path = [i]
            while tree.nodes[path[0]].parent >= 0:
                path.insert(0, tree.nodes[path[0]].parent)
            flat = torch.cat([torch.arange(tree.nodes[p].start, tree.nodes[p].end, device=tree.token_ids_T.device) for p in path])
            source = torch.searchsorted(flat, tree.source_N[mine])
            out, result = self._branch(tree.token_ids_T[flat], tree.position_T[flat], source, tree.target_N[mine])
            parts.append(result)
            order.append(mine)
            if (loss := self._aux_loss(out)) is not None:
                aux.append(loss * len(flat))
                tokens += len(flat)
        back = torch.cat(order).argsort()
        columns = ([x for x in column if x is not None] for column in zip(*parts, strict=True))
        logp, entropy, top1, sum_sq = (torch.cat(column)[back] if column else None for column in columns)
        loss = torch.stack(aux).sum() / tokens if aux else None
        assert logp is not None
        return TokenOutputs(logp_N=logp, entropy_N=entropy, top1_N=top1, log_sum_sq_N=sum_sq, aux_loss=loss)

    def _branch(self, ids: Tensor, positions: Tensor, source: Tensor, target: Tensor) -> tuple[Any, Read]:
        if self.paths.head == "chunked":
            out = self._backbone(ids, positions)
            return out, self._chunked(out.last_hidden_state[0][source], target)
        more = {"output_router_logits": True} if self.aux_loss else {}
        out = self.causal_model(input_ids=ids[None], use_cache=False, **more)
        return out, dense_logprobs(out.logits[0][source] / self.temperature, target, sum_sq=self.sum_sq)

    def _aux_loss(self, out: Any) -> Tensor | None:
        """Switch Transformer's load-balancing loss (Fedus et al. 2021, eq. 4), as the model's own module computes it."""
        if not self.aux_loss:
            return None
        model = self.causal_model
        config = model.config.get_text_config()
        experts = config.__dict__.get("num_experts") or config.__dict__.get("num_local_experts") or config.n_routed_experts
        balance = sys.modules[type(model).__module__].load_balancing_loss_func
        return balance(out.router_logits, experts, config.num_experts_per_tok)
