"""Frozen records that pass between rooms. This module imports neither torch nor transformers.

Shape legend, used in names throughout the library (`logp_N` has shape `[N]`):

    T  tokens in a tree            N  trained tokens in a tree      B  branches in a tree
    E  examples (groups) in a tree G  completions per prompt        V  vocabulary      H  hidden width
    P  pairs: a chosen and a rejected completion of one prompt         K  scores of a token

**Token ids are the truth, text is only a view.** No record here holds text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Source = Literal["prompt", "model", "tool", "template"]
SOURCES: tuple[Source, ...] = ("prompt", "model", "tool", "template")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of tokens with one origin and one fate.

    Example: the answer of a ChatML assistant turn, with its end-of-turn token:
    ``Segment(token_ids=[4052, 2], source="model", trained=True)``.
    """

    token_ids: np.ndarray
    """1-D integers; a list is accepted and converted."""
    source: Source
    trained: bool
    """True when the loss sees each of these tokens as a target."""
    behaviour_logp: np.ndarray | None = None
    """Where sampled: log-prob of each token under the policy that sampled it, at its temperature."""
    sampled_logp: np.ndarray | None = None
    """Where that is another one: under the distribution that each token was really drawn from (truncated, penalised, or a server's)."""
    policy_version: int | None = None
    """Where sampled: the number of optimizer steps that policy had taken."""
    label: bool | None = None
    """Where a process reward model is taught: whether the step is right whose last token this is. Of a trained segment of one token."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", np.asarray(self.token_ids, dtype=np.int32))
        for name, logp in (("behaviour", self.behaviour_logp), ("sampled", self.sampled_logp)):
            if logp is not None and len(logp) != len(self.token_ids):
                raise ValueError(f"A segment of {len(self.token_ids)} tokens has {len(logp)} {name} log-probs; give one for each token.")

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One continuation of an example's prompt. ``label`` (KTO) and ``advantage`` (online methods) ride along.

    Of a pair the first branch is the chosen one. Of an example of KTO the first has a label, and the second, without one, is a
    completion of another prompt, by which KTO estimates how far the policy has gone from the reference.
    """

    segments: tuple[Segment, ...]
    label: bool | None = None
    advantage: float | None = None
    left_out: int = 0
    """Trained tokens that are not computed, because nothing can be learnt from them, and that means are over all the same."""

    def __len__(self) -> int:
        return sum(map(len, self.segments))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One shared prompt and its branches: a group. SFT has one branch, DPO two, GRPO ``num_generations``.

    Example, a chat row for SFT (`prompt` empty, the turns are the one branch's segments)::

        Example(group_id="train:17", prompt=(), branches=(Branch(segments=(
            Segment(token_ids=[1, 9906, 2, 1, 77], source="template", trained=False),
            Segment(token_ids=[4052, 2], source="model", trained=True),
        )),))
    """

    group_id: str
    """Made when the row or prompt is drawn. Nothing depends on the order of a sampler or on a reshape."""
    prompt: tuple[Segment, ...]
    branches: tuple[Branch, ...]
    margin: float | None = None
    """Of a pair: by how much the chosen branch is better, where the data says so."""
    ref_logp: np.ndarray | None = None
    """Log-prob of every target under the reference, where that is known: `[trained_tokens]`, of the prompt, then branch by branch."""

    def __post_init__(self) -> None:
        if self.ref_logp is not None and len(self.ref_logp) != self.trained_tokens:
            raise ValueError(f"Example {self.group_id} has {self.trained_tokens} targets and {len(self.ref_logp)} reference log-probs.")
        if not self.branches:
            raise ValueError(f"Example {self.group_id} has no branch; give at least one.")
        if len(self.branches) > 1 and any(segment.trained for segment in self.prompt):
            raise ValueError(
                f"Example {self.group_id} trains on a prompt that its {len(self.branches)} branches share; train in the branches."
            )

    def __len__(self) -> int:
        """Tokens as a tree: the prompt once, then every branch; 0 where all of it is left out."""
        return 0 if self.left_out else sum(map(len, self.prompt)) + sum(map(len, self.branches))

    @property
    def left_out(self) -> bool:
        """Whether no token of it is computed: see `Branch.left_out`."""
        return all(branch.left_out and not len(branch) for branch in self.branches)

    @property
    def trained_tokens(self) -> int:
        """Targets of the loss. The very first token of a row has no predecessor and is never one."""
        parts = [*self.prompt, *(s for b in self.branches for s in b.segments)]
        first = next((s.trained for s in parts if len(s)), False)
        return sum(len(s) for s in parts if s.trained) - (len(self.branches) if first and not any(map(len, self.prompt)) else int(first))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A slice of a tree's flat row. It attends to its ancestors and, causally, to itself."""

    start: int
    end: int
    parent: int
    """Index of the parent node, or -1 for a root. A parent stands before its children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTree:
    """A micro-batch: a flat row of T tokens, cut in nodes. No padding, no second batch axis.

    Plain packing is a forest of roots; a DPO pair is a root and two children. Worked example, prompt ``[5, 6]``
    with branches ``[7, 8]`` and ``[9]``, every branch token trained::

        token_ids_T = [5, 6, 7, 8, 9]     nodes = (0:2 root), (2:4 child of 0), (4:5 child of 0)
        position_T  = [0, 1, 2, 3, 2]     depth in the tree
        index_N     = [2, 3, 4]           where the trained tokens stand; target_N = [7, 8, 9]
        source_N    = [1, 2, 1]           whose hidden state predicts them: 6→7, 7→8, 6→9
        branch_N    = [0, 0, 1]           example_B = [0, 0]

    ``source_N`` is the library's only shift by one (`data/tree.py` makes it). The first token of a root has no
    predecessor and is never a target.
    """

    token_ids_T: torch.Tensor
    position_T: torch.Tensor
    nodes: tuple[Node, ...]
    index_N: torch.Tensor
    source_N: torch.Tensor
    branch_N: torch.Tensor
    example_B: torch.Tensor
    group_ids: tuple[str, ...]
    """E ids; `example_B` indexes them."""
    behaviour_logp_N: torch.Tensor | None = None
    sampled_logp_N: torch.Tensor | None = None
    ref_logp_N: torch.Tensor | None = None
    """Under the reference; None where it is not known yet."""
    label_N: torch.Tensor | None = None
    """int8: a step's label at its last token, 1 or 0, and -1 at other tokens; None where no token has one."""
    policy_version_B: torch.Tensor | None = None
    label_B: torch.Tensor | None = None
    """int8: 1, 0, and -1 for a branch without a label; None where no branch has one."""
    advantage_B: torch.Tensor | None = None
    left_out_B: torch.Tensor | None = None
    """Trained tokens of each branch that are not in the tree; None where none are left out."""
    margin_E: torch.Tensor | None = None

    @property
    def T(self) -> int:
        return len(self.token_ids_T)

    @property
    def N(self) -> int:
        return len(self.index_N)

    @property
    def target_N(self) -> torch.Tensor:
        return self.token_ids_T[self.index_N]

    @property
    def B(self) -> int:
        return len(self.example_B)

    @property
    def pairs(self) -> torch.Tensor:
        """For every example with two branches, which they are: `[P, 2]`, the chosen first. A rank's filler has none."""
        first = (self.example_B[1:] == self.example_B[:-1]).nonzero()
        return first + first.new_tensor([[0, 1]])

    def to(self, device: torch.device) -> TokenTree:
        """The same tree with its tensors on `device`."""

        def move(tensor: torch.Tensor | None) -> Any:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(
            self,
            token_ids_T=move(self.token_ids_T),
            position_T=move(self.position_T),
            index_N=move(self.index_N),
            source_N=move(self.source_N),
            branch_N=move(self.branch_N),
            example_B=move(self.example_B),
            behaviour_logp_N=move(self.behaviour_logp_N),
            sampled_logp_N=move(self.sampled_logp_N),
            ref_logp_N=move(self.ref_logp_N),
            label_N=move(self.label_N),
            policy_version_B=move(self.policy_version_B),
            label_B=move(self.label_B),
            advantage_B=move(self.advantage_B),
            left_out_B=move(self.left_out_B),
            margin_E=move(self.margin_E),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOutputs:
    """What the policy says of each trained token."""

    logp_N: torch.Tensor
    entropy_N: torch.Tensor | None = None
    """In nats, of the whole next-token distribution; None where it was not asked for."""
    top1_N: torch.Tensor | None = None
    """1.0 where the target is the most likely token."""
    log_sum_sq_N: torch.Tensor | None = None
    """``log Σ_v p(v)²`` of the whole next-token distribution, without gradient; None where it was not asked for."""
    aux_loss: torch.Tensor | None = None
    """A mixture-of-experts model's load-balancing loss for the tree, where asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """What a reward model says of each trained token, having read it and all before it."""

    score_NK: torch.Tensor
    """K scores, float32 at least: 1 of a reward model; of a process reward model 2 logits, for a wrong step and for a right one."""
    aux_loss: torch.Tensor | None = None
    """As in `TokenOutputs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A total and what it is to be divided by. Only `loop.py` divides."""

    total: torch.Tensor
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOut:
    """Loss terms, each divided by its own count over the whole optimizer step and then added; and metrics.

    Example: ``LossOut(terms={"nll": Sum(total=-logp_N.sum(), count=N)}, metrics={"entropy": Sum(...)})``.
    """

    terms: Mapping[str, Sum]
    metrics: Mapping[str, Sum]
