"""Examples → token tree: the only place that lays tokens out, and the library's only shift by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from burnish.types import Branch, Example, Node, Segment, TokenTree


@dataclass(slots=True)
class _Row:
    """A flat row under construction."""

    ids: list[np.ndarray] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    index: list[np.ndarray] = field(default_factory=list)
    source: list[np.ndarray] = field(default_factory=list)
    branch: list[np.ndarray] = field(default_factory=list)
    behaviour: list[np.ndarray] = field(default_factory=list)
    sampled: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    length: int = 0
    branches: int = 0

    def add_node(self, segments: Sequence[Segment], *, parent: int, depth: int) -> int:
        """Appends one node and its targets; returns its index. `depth` is the position of its first token."""
        start, before = self.length, self.nodes[parent].end - 1 if parent >= 0 else -1
        for segment in segments:
            self._add_segment(segment, first_source=before if self.length == start else self.length - 1)
        self.positions.append(np.arange(depth, depth + self.length - start))
        self.nodes.append(Node(start=start, end=self.length, parent=parent))
        return len(self.nodes) - 1

    def _add_segment(self, segment: Segment, *, first_source: int) -> None:
        if not len(segment):
            return
        if segment.trained:
            index = np.arange(self.length, self.length + len(segment))
            source = index - 1
            source[0] = first_source
            seen = source >= 0
            self.index.append(index[seen])
            self.source.append(source[seen])
            self.branch.append(np.full(seen.sum(), self.branches))
            self.labels.append(np.full(seen.sum(), -1 if segment.label is None else segment.label, dtype=np.int8))
            for logp, logps in ((segment.behaviour_logp, self.behaviour), (segment.sampled_logp, self.sampled)):
                logps.append((np.full(len(segment), np.nan) if logp is None else np.asarray(logp, dtype=np.float64))[seen])
        self.ids.append(segment.token_ids)
        self.length += len(segment)


def build_tree(examples: Sequence[Example]) -> TokenTree:
    """Lays `examples` out as one `TokenTree`, on the CPU.

    A prompt with one branch is a single root; with several, a root and its children; without a prompt, each branch is a
    root. Branches that are left out have no node. Raises ValueError when some but not all trained tokens carry behaviour log-probs,
    or only some examples reference log-probs.
    """
    row, example_of = _Row(), []
    for number, example in enumerate(examples):
        prompt_length = sum(map(len, example.prompt))
        there = sum(1 for branch in example.branches if len(branch) or not branch.left_out)
        root = row.add_node(example.prompt, parent=-1, depth=0) if there > 1 and prompt_length else -1
        for branch in example.branches:
            if len(branch) or not branch.left_out:
                head = example.prompt if there == 1 else ()
                row.add_node([*head, *branch.segments], parent=root, depth=prompt_length if root >= 0 else 0)
            row.branches += 1
            example_of.append(number)
    branches = [b for e in examples for b in e.branches]
    return TokenTree(
        token_ids_T=_long(row.ids),
        position_T=_long(row.positions),
        nodes=tuple(row.nodes),
        index_N=_long(row.index),
        source_N=_long(row.source),
        branch_N=_long(row.branch),
        example_B=torch.tensor(example_of, dtype=torch.long),
        group_ids=tuple(e.group_id for e in examples),
        behaviour_logp_N=_logps(row.behaviour, "behaviour"),
        sampled_logp_N=_logps(row.sampled, "sampled"),
        ref_logp_N=_reference(examples),
        label_N=_labels(np.concatenate(row.labels) if row.labels else np.zeros(0, dtype=np.int8)),
        policy_version_B=_versions(branches),
        label_B=_labels(np.array([-1 if b.label is None else b.label for b in branches], dtype=np.int8)),
        advantage_B=_all_or_none([b.advantage for b in branches], "branches have an advantage", torch.float32),
        left_out_B=torch.tensor([b.left_out for b in branches]) if any(b.left_out for b in branches) else None,
        margin_E=_all_or_none([e.margin for e in examples], "examples have a margin", torch.float32),
    )


def _long(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64)) if parts else torch.zeros(0, dtype=torch.long)


def _logps(parts: Sequence[np.ndarray], name: str) -> torch.Tensor | None:
    logp = np.concatenate(parts) if parts else np.zeros(0)
    missing = np.isnan(logp)
    if missing.all():
        return None
    if missing.any():
        raise ValueError(f"{missing.sum()} of {len(logp)} trained tokens have no {name} log-prob; give all of them or none.")
    return torch.from_numpy(logp.astype(np.float32))


def _reference(examples: Sequence[Example]) -> torch.Tensor | None:
    known = [e.ref_logp for e in examples if e.ref_logp is not None]
    if not known:
        return None
    if len(known) != len(examples):
        raise ValueError(f"{len(known)} of {len(examples)} examples have log-probs of the reference; give all of them or none.")
    return torch.from_numpy(np.concatenate(known).astype(np.float32))


def _labels(label: np.ndarray) -> torch.Tensor | None:
    return torch.from_numpy(label) if (label >= 0).any() else None


def _versions(branches: Sequence[Branch]) -> torch.Tensor | None:
    """The oldest policy that sampled a token of each branch."""
    none = [-1 if b.left_out else None for b in branches]
    versions = [
        min((s.policy_version for s in b.segments if s.policy_version is not None), default=other)
        for b, other in zip(branches, none, strict=True)
    ]
    return _all_or_none(versions, "branches have a policy version", torch.long)


def _all_or_none(values: Sequence[float | None], what: str, dtype: torch.dtype) -> torch.Tensor | None:
    given = [v for v in values if v is not None]
    if not given:
        return None
    if len(given) != len(values):
        raise ValueError(f"{len(given)} of {len(values)} {what}; give all of them one or none.")
    return torch.tensor(given, dtype=dtype)


def prune(tree: TokenTree, kept_B: torch.Tensor) -> TokenTree:
    """The tree without the branches that `kept_B` (bool, `[B]`) leaves out, and without the tokens that no other branch needs.

    Every branch has to hold a target, or to be left out; the examples stay, in their order.
    """
    inside = torch.zeros(len(tree.nodes), dtype=torch.bool)
    starts = torch.tensor([node.start for node in tree.nodes])
    targets = kept_B[tree.branch_N]
    inside[torch.searchsorted(starts, tree.index_N[targets].cpu(), right=True) - 1] = True
    for i in reversed(range(len(tree.nodes))):
        if inside[i] and tree.nodes[i].parent >= 0:
            inside[tree.nodes[i].parent] = True
    number, nodes, runs, length = {-1: -1}, list[Node](), [], 0
    for i, node in enumerate(tree.nodes):
        if inside[i]:
            number[i] = len(nodes)
            nodes.append(Node(start=length, end=length + node.end - node.start, parent=number[node.parent]))
            runs.append(torch.arange(node.start, node.end))
            length = nodes[-1].end
    device = tree.token_ids_T.device
    kept_T = torch.cat(runs).to(device) if runs else torch.zeros(0, dtype=torch.long, device=device)
    place_T = torch.full((tree.T,), -1, device=device).index_copy_(0, kept_T, torch.arange(len(kept_T), device=device))

    def of(value: torch.Tensor | None, kept: torch.Tensor) -> torch.Tensor | None:
        return None if value is None else value[kept]

    return replace(
        tree,
        token_ids_T=tree.token_ids_T[kept_T],
        position_T=tree.position_T[kept_T],
        nodes=tuple(nodes),
        index_N=place_T[tree.index_N[targets]],
        source_N=place_T[tree.source_N[targets]],
        branch_N=(kept_B.cumsum(0) - 1)[tree.branch_N[targets]],
        example_B=tree.example_B[kept_B],
        behaviour_logp_N=of(tree.behaviour_logp_N, targets),
        sampled_logp_N=of(tree.sampled_logp_N, targets),
        ref_logp_N=of(tree.ref_logp_N, targets),
        label_N=of(tree.label_N, targets),
        policy_version_B=of(tree.policy_version_B, kept_B),
        label_B=of(tree.label_B, kept_B),
        advantage_B=of(tree.advantage_B, kept_B),
        left_out_B=of(tree.left_out_B, kept_B),
    )


def split_example(example: Example, max_tokens: int) -> list[Example]:
    """Cuts a group that is larger than `max_tokens` in groups that repeat its prompt and share its id, between branches.

    A single branch is never cut: it may be longer than the budget and then stands alone. For methods whose loss looks at
    one branch at a time.
    """
    if len(example) <= max_tokens:
        return [example]
    prompt, used = sum(map(len, example.prompt)), 0
    parts: list[list[Branch]] = []
    for branch in example.branches:
        if not parts or used + len(branch) > max_tokens:
            parts.append([branch])
            used = prompt + len(branch)
        else:
            parts[-1].append(branch)
            used += len(branch)
    return [replace(example, branches=tuple(part)) for part in parts]
