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
            logp = segment.behaviour_logp
            self.behaviour.append((np.full(len(segment), np.nan) if logp is None else np.asarray(logp, dtype=np.float64))[seen])
        self.ids.append(segment.token_ids)
        self.length += len(segment)


def build_tree(examples: Sequence[Example]) -> TokenTree:
    """Lays `examples` out as one `TokenTree`, on the CPU.

    A prompt with one branch is a single root; with several, a root and its children; without a prompt, each branch is a
    root. Raises ValueError when some but not all trained tokens carry behaviour log-probs, or only some branches a label.
    """
    row, example_of = _Row(), []
    for number, example in enumerate(examples):
        prompt_length = sum(map(len, example.prompt))
        root = -1
        if len(example.branches) > 1 and prompt_length:
            root = row.add_node(example.prompt, parent=-1, depth=0)
        for branch in example.branches:
            head = example.prompt if len(example.branches) == 1 else ()
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
        behaviour_logp_N=_behaviour(row),
        policy_version_B=_versions(branches),
        label_B=_per_branch([b.label for b in branches], "a label", torch.bool),
        advantage_B=_per_branch([b.advantage for b in branches], "an advantage", torch.float32),
    )


def _long(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64)) if parts else torch.zeros(0, dtype=torch.long)


def _behaviour(row: _Row) -> torch.Tensor | None:
    logp = np.concatenate(row.behaviour) if row.behaviour else np.zeros(0)
    missing = np.isnan(logp)
    if missing.all():
        return None
    if missing.any():
        raise ValueError(f"{missing.sum()} of {len(logp)} trained tokens have no behaviour log-prob; give all of them or none.")
    return torch.from_numpy(logp.astype(np.float32))


def _versions(branches: Sequence[Branch]) -> torch.Tensor | None:
    """The oldest policy that sampled a token of each branch."""
    versions = [min((s.policy_version for s in b.segments if s.policy_version is not None), default=None) for b in branches]
    return _per_branch(versions, "a policy version", torch.long)


def _per_branch(values: Sequence[float | None], what: str, dtype: torch.dtype) -> torch.Tensor | None:
    given = [v for v in values if v is not None]
    if not given:
        return None
    if len(given) != len(values):
        raise ValueError(f"{len(given)} of {len(values)} branches have {what}; give all of them one or none.")
    return torch.tensor(given, dtype=dtype)


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
