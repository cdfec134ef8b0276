"""The start-up probe: does this model give, for a small tree, what it gives for its branches run alone? Log-probs, or scores.

A recurrent layer, an attention that does not go through `transformers.AttentionInterface`, or a head that does more than
project: each shows here as a difference, and the model is then run the plain way, with a message. With weights in less than
float32 only differences that rounding cannot explain count: an eighth of what a layer that ignores the tree would change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.models.attention import NAME, register
from burnish.models.load import ModelError
from burnish.models.policy import Paths, TreeModel
from burnish.types import Node, TokenScores, TokenTree

TREES = (Paths(), Paths(backend="sdpa"))
"""The kernel that suits the layers best; and one that runs everywhere, which is the first on a CPU."""
BRANCHES = (Paths(attention="branches"), Paths(attention="branches", head="model"))
"""From faster to plainer. The last is transformers' own forward and the measure of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """`paths` is the fastest way that agrees; `gap` its largest difference; `messages` say what was given up and why."""

    paths: Paths
    gap: float
    messages: tuple[str, ...]


def probe_tree(vocabulary: int) -> TokenTree:
    """Two trees of 22 tokens in all: a root of 8 with branches of 4 and 3, one of them with a child of 3, and a root of 4."""
    nodes = tuple(Node(start=a, end=b, parent=p) for a, b, p in ((0, 8, -1), (8, 12, 0), (12, 15, 0), (15, 18, 1), (18, 22, -1)))
    position = [*range(8), *range(8, 12), *range(8, 11), *range(12, 15), *range(4)]
    index = [*range(3, 8), *range(8, 12), *range(12, 15), *range(15, 18), *range(19, 22)]
    source = [i - 1 for i in index]
    source[index.index(12)], source[index.index(15)] = 7, 11
    generator = torch.Generator().manual_seed(0)
    return TokenTree(
        token_ids_T=torch.randint(0, vocabulary, (22,), generator=generator),
        position_T=torch.tensor(position),
        nodes=nodes,
        index_N=torch.tensor(index),
        source_N=torch.tensor(source),
        branch_N=torch.zeros(len(index), dtype=torch.long),
        example_B=torch.zeros(1, dtype=torch.long),
        group_ids=("probe",),
    )


def probe(policy: TreeModel, *, wanted: str | None = None, mixed: bool = False, device: torch.device | None = None) -> Probe:
    """Chooses how to run `policy.model`, sets the model's attention accordingly and returns what was found.

    `wanted` is None (the fastest way that is right), "tree" (or an error) or "branches". Raises ModelError when "tree" was
    asked for and the model differs. `mixed`: shards of float32 weights that are computed with in less. `device` is where they are
    computed; None: where the weights are, which offloaded shards leave. Call on every rank that holds a part of the model.
    """
    model, was_training = policy.causal_model, policy.training
    plain = model.config._attn_implementation
    policy.eval()
    try:
        with torch.no_grad():
            tree = _without_padding(probe_tree(model.get_input_embeddings().weight.shape[0]), model.config.get_text_config().pad_token_id)
            tree = tree.to(device or policy.device)
            trees = () if wanted == "branches" else TREES[: 1 if tree.token_ids_T.device.type == "cpu" else 2]
            found = _choose(policy, tree, (*trees, *BRANCHES), plain, mixed)
    finally:
        policy.train(was_training)
    if wanted == "tree" and found.paths.attention != "tree":
        raise ModelError(f"attn_implementation='tree' was asked for, and {found.messages[0]}")
    policy.paths = found.paths
    model.set_attn_implementation(NAME if found.paths.attention == "tree" else plain)
    return found


def _without_padding(tree: TokenTree, pad: int | None) -> TokenTree:
    """A classifier of sequences passes over padding at the end of a row, where a real row has none."""
    ids = tree.token_ids_T
    return tree if pad is None else replace(tree, token_ids_T=torch.where(ids == pad, 1 if pad == 0 else pad - 1, ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """The branches run alone in one precision, and by how much a right way may differ from them there."""

    compute_dtype: torch.dtype | None
    backend: str | None
    values: Tensor
    tolerance: float


def _choose(policy: TreeModel, tree: TokenTree, ways: Sequence[Paths], plain: str, mixed: bool) -> Probe:
    measures = _measures(policy, tree, plain, mixed)
    messages: list[str] = []
    for paths in ways[:-1]:
        gap = 0.0
        try:
            for measure in measures:
                way = replace(paths, backend=paths.backend or measure.backend)
                found, what = _values(policy, tree, way, plain, measure.compute_dtype)
                difference = float((found - measure.values).abs().max())
                if not difference <= measure.tolerance:  # not a number is not equal either
                    reason = f"its {what} differ by up to {difference:.2g}"
                    break
                gap = max(gap, difference)
            else:
                return Probe(paths=paths, gap=gap, messages=tuple(messages))
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, AssertionError) as error:
            reason = f"it fails ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        messages.append(_message(type(policy.causal_model).__name__, paths, ways[ways.index(paths) + 1], reason))
    return Probe(paths=ways[-1], gap=0.0, messages=tuple(messages))


def _message(name: str, paths: Paths, other: Paths, reason: str) -> str:
    if other.attention == "tree":
        return (
            f"{name}'s attention cannot be computed by the kernel for trees on this device: {reason}; it is called for each node, slower."
        )
    if paths.attention == "tree":
        return f"{name} does not compute a token tree as its branches run alone: {reason}; branches are run one by one, which costs time."
    return f"{name}'s head is not a plain projection: {reason}; the model's own logits are used, which costs memory."


def _values(policy: TreeModel, tree: TokenTree, paths: Paths, plain: str, compute_dtype: torch.dtype | None) -> tuple[Tensor, str]:
    """Of each trained token, and what they are."""
    before = policy.paths, policy.compute_dtype
    if paths.attention == "tree":
        register()
    try:
        policy.paths, policy.compute_dtype = paths, compute_dtype
        policy.causal_model.set_attn_implementation(NAME if paths.attention == "tree" else plain)
        found = policy(tree)
        return (found.score_NK.double(), "scores") if isinstance(found, TokenScores) else (found.logp_N.double(), "log-probs")
    finally:
        policy.paths, policy.compute_dtype = before
        policy.causal_model.set_attn_implementation(plain)


def _measures(policy: TreeModel, tree: TokenTree, plain: str, mixed: bool) -> list[_Measure]:
    """In float32 where the weights are, which shows the smallest leak; and as the model will be trained, where that is another way."""
    fine = {torch.float32, torch.float64}
    exact = not mixed and {p.dtype for p in policy.model.parameters()} <= fine
    coarse = policy.compute_dtype not in {None, *fine} or not exact
    measures = []
    if exact:
        values, _ = _values(policy, tree, BRANCHES[-1], plain, None)
        # float32 at best: models compute norms and softmax in it whatever their weights are
        tolerance = 64 * torch.finfo(torch.float32).eps * max(1.0, float(values.abs().max()))
        measures.append(_Measure(compute_dtype=None, backend="sdpa", values=values, tolerance=tolerance))
    device = tree.token_ids_T.device
    if coarse or device.type != "cpu":
        values, _ = _values(policy, tree, BRANCHES[-1], plain, policy.compute_dtype)
        # how far rounding goes depends on the model, so the measure is what a layer that ignores the tree would change:
        # in bfloat16, SmolLM2's rounding reaches a twenty-fifth of that
        row = replace(tree, nodes=(Node(start=0, end=tree.T, parent=-1),), position_T=torch.arange(tree.T, device=device))
        leak = float((_values(policy, row, BRANCHES[-1], plain, policy.compute_dtype)[0] - values).abs().max())
        measures.append(_Measure(compute_dtype=policy.compute_dtype, backend=None, values=values, tolerance=leak / 8))
    return measures
