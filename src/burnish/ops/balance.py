"""The balancing loss of a mixture of experts, as a term beside a method's own."""

from __future__ import annotations

from burnish.types import LossOut, Sum, TokenOutputs, TokenScores, TokenTree


def routed(tree: TokenTree) -> float:
    """Tokens that the balancing loss is about: none of a tree without targets, which only fills a rank's time."""
    return float(tree.T if tree.N else 0)


def with_balance(out: LossOut, tree: TokenTree, outputs: TokenOutputs | TokenScores, coefficient: float) -> LossOut:
    """`out` with the term "aux", where `coefficient` is not 0 and the model gives one.

    A mean over tokens of each tree's own balance: the one term that depends on how a step is cut in micro-batches.
    """
    if not coefficient or outputs.aux_loss is None:
        return out
    term = Sum(total=coefficient * outputs.aux_loss * routed(tree), count=routed(tree))
    metric = Sum(total=outputs.aux_loss.detach() * routed(tree), count=routed(tree))
    return LossOut(terms={**out.terms, "aux": term}, metrics={**out.metrics, "aux_loss": metric})
