"""Law *mask*: the gradient with respect to anything not trained is exactly 0, and nothing untrained enters silently."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from burnish.data.formats import check_rows
from burnish.data.prepare import PrepareOptions, prepare
from burnish.data.rows import DataError
from burnish.data.sources import open_rows
from burnish.data.tree import build_tree
from burnish.models.attention import NAME, register
from burnish.models.policy import Paths, Policy
from burnish.types import Branch, Example, Segment
from tests.laws.methods import cases, tokenizer
from tests.laws.runs import cut_step, make_run, take
from tests.laws.trees import make_tree, visible
from tests.models.families import FAMILIES, VOCABULARY, tiny_model

pytestmark = pytest.mark.usefixtures("float64")
BACKENDS = ("sdpa", "dense")
TREES = [n for n, (_, _, way) in FAMILIES.items() if way == "tree"]


def policy_of(family, backend):
    register()
    model = tiny_model(family)
    model.set_attn_implementation(NAME)
    return Policy(model, paths=Paths(backend=backend))


def embedding_gradients(policy, tree, targets):
    """`[targets, T, H]`: the gradient of each of those log-probs with respect to every token's embedding."""
    kept = []
    hook = policy.model.get_input_embeddings().register_forward_hook(lambda _, __, out: kept.append(out))
    logp_N = policy(tree).logp_N
    hook.remove()
    return torch.stack([torch.autograd.grad(logp_N[n], kept[0], retain_graph=True)[0][0] for n in targets])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", TREES)
def test_a_log_prob_depends_on_its_own_past_and_on_nothing_else(family, backend):
    """Whatever is not on the path to a target has exactly no gradient; on the path, without a window, all have some."""
    tree = make_tree(VOCABULARY)
    seen = visible(tree)
    targets = range(0, tree.N, 3)
    gradient = embedding_gradients(policy_of(family, backend), tree, targets)
    touched = (gradient != 0).any(-1)
    assert not (touched & ~seen[list(targets)]).any()
    if tiny_model(family).config.to_dict().get("sliding_window") is None:
        assert torch.equal(touched, seen[list(targets)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "mistral-sliding", "gemma2", "gpt-oss"])
def test_other_rows_and_later_tokens_change_nothing(family, backend):
    """Each token replaced in turn: log-probs that do not see it stay as they were, the others (without a window) do not."""
    tree, policy = make_tree(VOCABULARY), policy_of(family, backend)
    seen = visible(tree)
    with torch.no_grad():
        before = policy(tree).logp_N
        for t in range(tree.T):
            ids = tree.token_ids_T.clone()
            ids[t] = (ids[t] + 1) % VOCABULARY
            moved = (policy(replace(tree, token_ids_T=ids)).logp_N - before).abs()
            same = ~seen[:, t] & (tree.index_N != t)
            assert moved[same].max() <= 1e-12, f"token {t}"
            if family == "llama":
                assert not (~same).any() or moved[~same].min() > 1e-9


@cases("mask")
def test_embeddings_of_tokens_after_the_last_trained_one_stay(case):
    """Through the whole loop: tokens that occur only where nothing that is trained sees them get no gradient at all."""
    examples = case.examples(4)
    used = {int(token) for e in examples for part in (e.prompt, *(b.segments for b in e.branches)) for s in part for token in s.token_ids}
    unused = [token for token in range(VOCABULARY) if token not in used]
    early, late = unused[:3], unused[3:6]
    before, rest = (Segment(token_ids=ids, source="prompt", trained=False) for ids in (early, late))
    examples = [
        replace(e, prompt=(before, *e.prompt), branches=tuple(replace(b, segments=(*b.segments, rest)) for b in e.branches))
        for e in examples
    ]
    outcome = take(make_run(replace(case, aux_loss=False)), cut_step(examples, [range(4)]))
    rows = outcome.gradient["model.embed_tokens.weight"].abs().sum(1)
    assert (rows[late] == 0).all()
    assert (rows[early] > 0).all()


@cases("mask")
def test_untrained_tokens_are_in_no_metric(case):
    examples = case.examples(6)
    metrics = take(make_run(case), cut_step(examples, [range(6)])).metrics
    labelled = any(b.label is not None for e in examples for b in e.branches)
    own = [b for e in examples for b in e.branches if b.label is not None or not labelled]
    first = sum(e.trained_tokens for e in examples) - sum(len(s) for e in examples for b in e.branches for s in b.segments if s.trained)
    if case.counted:
        assert metrics[f"{case.counted} count"] == first + sum(len(s) for b in own for s in b.segments if s.trained)
    assert metrics["trained_share total"] == sum(e.trained_tokens for e in examples)
    assert metrics["trained_share count"] == sum(map(len, examples))


def test_a_row_with_nothing_trained_is_counted_and_named(tmp_path):
    rows = [
        {"input_ids": [5, 6, 7, 2], "labels": [-100, -100, 7, 2]},
        {"input_ids": [5, 6, 7, 2], "labels": [-100, -100, -100, -100]},
        {"input_ids": [5], "labels": [5]},
    ]
    store = prepare(open_rows(rows), tokenizer(), PrepareOptions(), cache_dir=tmp_path)
    assert (store.report.kept, store.report.dropped_nothing_trained, store.report.trained_tokens) == (1, 2, 2)
    assert "2 rows with no trained token, dropped (first: rows" in str(store.report)
    assert [e.trained_tokens for e in store] == [2]


def test_a_set_with_nothing_trained_is_refused(tmp_path):
    rows = [{"input_ids": [5, 6], "labels": [-100, -100]}]
    check_rows(open_rows(rows))
    with pytest.raises(DataError, match="Not one of the 1 rows of rows has a token to train on"):
        prepare(open_rows(rows), tokenizer(), PrepareOptions(), cache_dir=tmp_path)


def test_the_first_token_of_a_row_is_no_target():
    whole = Example(group_id="a", prompt=(), branches=(Branch(segments=(Segment(token_ids=np.arange(5), source="model", trained=True),)),))
    tree = build_tree([whole, whole])
    assert tree.index_N.tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert 2 * whole.trained_tokens == tree.N
