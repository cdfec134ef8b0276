"""Law *order*: permuting a batch permutes per-example losses and changes nothing else."""

import numpy as np
import pytest
import torch

from burnish.data.tree import build_tree
from burnish.models.policy import Paths
from burnish.ops.reduce import per_branch
from burnish.types import TokenScores
from tests.laws.exact import distance
from tests.laws.methods import cases
from tests.laws.runs import cut_step, make_run, take

pytestmark = pytest.mark.usefixtures("float64")
ORDERS = {"reversed": [6, 5, 4, 3, 2, 1, 0], "shuffled": [3, 0, 6, 2, 5, 1, 4]}
WAYS = {"sdpa": Paths(), "dense": Paths(backend="dense"), "branches": Paths(attention="branches")}


def per_example(run, examples):
    """What is said of each example, its log-probability or its score, by group id."""
    tree = build_tree(examples)
    with torch.no_grad():
        outputs = run.policy(tree)
        said_B = per_branch(outputs.score_NK.sum(1) if isinstance(outputs, TokenScores) else outputs.logp_N, tree.branch_N, tree.B)
    return {tree.group_ids[e]: float(x) for e, x in zip(tree.example_B, said_B, strict=True)}


@cases("order")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("way", WAYS)
def test_permuted(case, order, way):
    examples = case.examples(7)
    moved = [examples[i] for i in ORDERS[order]]
    run = make_run(case, paths=WAYS[way])
    wanted = per_example(run, examples)
    assert len(set(np.round(list(wanted.values()), 6))) == 7, "losses that tell the examples apart"
    assert per_example(run, moved) == pytest.approx(wanted, rel=1e-12)
    ours, theirs = (take(make_run(case, paths=WAYS[way]), cut_step(one, [range(7)])) for one in (examples, moved))
    assert distance(theirs.gradient, ours.gradient) <= 1e-10
    assert theirs.metrics == pytest.approx(ours.metrics, rel=1e-12)
