"""Token trees, worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from burnish.data.tree import build_tree, prune, split_example
from burnish.types import Branch, Example, Node, Segment


def seg(ids, trained=True, **more):
    return Segment(token_ids=ids, source="model" if trained else "prompt", trained=trained, **more)


def test_the_worked_example_of_token_tree():
    """Prompt [5, 6], branches [7, 8] and [9]: 6→7, 7→8, 6→9."""
    example = Example(group_id="a", prompt=(seg([5, 6], False),), branches=(Branch(segments=(seg([7, 8]),)), Branch(segments=(seg([9]),))))
    tree = build_tree([example])
    assert tree.token_ids_T.tolist() == [5, 6, 7, 8, 9]
    assert tree.position_T.tolist() == [0, 1, 2, 3, 2]
    assert tree.nodes == (Node(start=0, end=2, parent=-1), Node(start=2, end=4, parent=0), Node(start=4, end=5, parent=0))
    assert tree.index_N.tolist() == [2, 3, 4]
    assert tree.source_N.tolist() == [1, 2, 1]
    assert tree.target_N.tolist() == [7, 8, 9]
    assert tree.branch_N.tolist() == [0, 0, 1]
    assert tree.example_B.tolist() == [0, 0]
    assert (tree.T, tree.N, tree.B) == (5, 3, 2)


def test_one_branch_is_one_root_and_rows_are_a_forest():
    rows = [
        Example(group_id="a", prompt=(seg([1, 2], False),), branches=(Branch(segments=(seg([3, 4]), seg([5], False))),)),
        Example(group_id="b", prompt=(), branches=(Branch(segments=(seg([6, 7, 8]),)),)),
    ]
    tree = build_tree(rows)
    assert [(n.start, n.end, n.parent) for n in tree.nodes] == [(0, 5, -1), (5, 8, -1)]
    assert tree.position_T.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert tree.index_N.tolist() == [2, 3, 6, 7], "token 6 opens a row and is never a target"
    assert tree.source_N.tolist() == [1, 2, 5, 6]
    assert tree.branch_N.tolist() == [0, 0, 1, 1]
    assert tree.group_ids == ("a", "b")
    assert [e.trained_tokens for e in rows] == [2, 2]


def test_branches_without_a_prompt_are_roots():
    example = Example(group_id="a", prompt=(), branches=(Branch(segments=(seg([1, 2]),)), Branch(segments=(seg([3, 4, 5]),))))
    tree = build_tree([example])
    assert [n.parent for n in tree.nodes] == [-1, -1]
    assert tree.position_T.tolist() == [0, 1, 0, 1, 2]
    assert tree.index_N.tolist() == [1, 3, 4]
    assert example.trained_tokens == 3


def test_behaviour_log_probs_follow_their_tokens():
    sampled = Branch(
        segments=(seg([7, 8], behaviour_logp=np.array([-0.5, -1.0]), policy_version=3), seg([4], False), seg([9], behaviour_logp=[-2.0])),
        advantage=1.5,
    )
    tree = build_tree([Example(group_id="a", prompt=(seg([5], False),), branches=(sampled,))])
    assert tree.target_N.tolist() == [7, 8, 9]
    assert tree.behaviour_logp_N.tolist() == [-0.5, -1.0, -2.0]
    assert tree.policy_version_B.tolist() == [3]
    assert tree.advantage_B.tolist() == [1.5]
    assert tree.label_B is None


def test_half_given_facts_are_refused():
    half = Branch(segments=(seg([1, 2, 3], behaviour_logp=[-1.0, -1.0, -1.0]), seg([4])))
    with pytest.raises(ValueError, match="1 of 3 trained tokens have no behaviour log-prob"):
        build_tree([Example(group_id="a", prompt=(), branches=(half,))])
    known = Example(group_id="a", prompt=(), branches=(Branch(segments=(seg([1, 2]),)),), ref_logp=np.zeros(1))
    with pytest.raises(ValueError, match="1 of 2 examples have log-probs of the reference"):
        build_tree([known, replace(known, ref_logp=None)])
    with pytest.raises(ValueError, match="Example a has 1 targets and 2 reference log-probs"):
        replace(known, ref_logp=np.zeros(2))
    with pytest.raises(ValueError, match="trains on a prompt that its 2 branches share"):
        Example(group_id="a", prompt=(seg([1]),), branches=(Branch(segments=()), Branch(segments=())))


def test_a_large_group_is_split_and_repeats_its_prompt():
    group = Example(group_id="g", prompt=(seg([1, 2, 3], False),), branches=tuple(Branch(segments=(seg([4] * n),)) for n in (4, 4, 4, 9)))
    parts = split_example(group, 12)
    assert [[len(b) for b in p.branches] for p in parts] == [[4, 4], [4], [9]]
    assert {p.group_id for p in parts} == {"g"}
    assert all(len(p.prompt[0]) == 3 for p in parts)
    assert split_example(group, 100) == [group]


def test_tensors_are_int64():
    tree = build_tree([Example(group_id="a", prompt=(), branches=(Branch(segments=(seg([1, 2]),)),))])
    assert {t.dtype for t in (tree.token_ids_T, tree.position_T, tree.index_N, tree.source_N, tree.branch_N)} == {torch.int64}


PAIR = Example(
    group_id="pair",
    prompt=(seg([5, 6], False),),
    branches=(Branch(segments=(seg([7, 8]),), label=True), Branch(segments=(seg([9]),))),
    margin=0.5,
    ref_logp=np.array([-1.0, -2.0, -3.0]),
)
LONE = Example(
    group_id="lone",
    prompt=(seg([1], False),),
    branches=(Branch(segments=(seg([2, 3]), seg([4], label=False))),),
    margin=1.0,
    ref_logp=np.zeros(3),
)


def test_what_rides_along():
    tree = build_tree([LONE, PAIR])
    assert tree.label_B.tolist() == [-1, 1, -1]
    assert tree.label_N.tolist() == [-1, -1, 0, -1, -1, -1]
    assert tree.ref_logp_N.tolist() == [0, 0, 0, -1, -2, -3]
    assert tree.margin_E.tolist() == [1.0, 0.5]
    assert tree.pairs.tolist() == [[1, 2]]
    assert build_tree([replace(LONE, ref_logp=None)]).pairs.tolist() == []


def test_a_pruned_tree_is_the_tree_of_the_branches_kept():
    tree = build_tree([PAIR, LONE, PAIR])
    found = prune(tree, torch.tensor([True, False, True, False, True]))
    kept = [replace(PAIR, branches=PAIR.branches[:1], ref_logp=PAIR.ref_logp[:2]), LONE]
    kept.append(replace(PAIR, branches=PAIR.branches[1:], ref_logp=PAIR.ref_logp[2:]))
    wanted = build_tree(kept)
    for name in (
        "token_ids_T",
        "position_T",
        "source_N",
        "index_N",
        "branch_N",
        "example_B",
        "ref_logp_N",
        "label_B",
        "margin_E",
        "label_N",
    ):
        assert torch.equal(vars_of(found)[name], vars_of(wanted)[name]), name
    # a prompt is a node of its own where it had two branches, and is read by the same tokens
    assert [(n.start, n.end, n.parent) for n in found.nodes] == [(0, 2, -1), (2, 4, 0), (4, 8, -1), (8, 10, -1), (10, 11, 3)]


def vars_of(tree):
    return {name: getattr(tree, name) for name in tree.__slots__}
