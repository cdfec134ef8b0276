"""The start-up probe: what computes trees is run as trees, and nothing that leaks slips through."""

import pytest
import torch

from burnish.models import attention
from burnish.models.attention import NAME
from burnish.models.load import ModelError
from burnish.models.policy import Paths, Policy
from burnish.models.probe import BRANCHES, TREES, _choose, probe, probe_tree
from tests.laws.trees import path_to
from tests.models.families import FAMILIES, tiny_model

PRECISIONS = {
    "float64": (torch.float64, None),
    "float32": (torch.float32, None),
    "bfloat16 compute": (torch.float32, torch.bfloat16),
    "bfloat16": (torch.bfloat16, None),
}


def policy_of(family, precision="float32", **changes):
    dtype, compute = PRECISIONS[precision]
    return Policy(tiny_model(family, dtype=dtype, **changes), compute_dtype=compute)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, precision):
    policy = policy_of(family, precision)
    plain = policy.model.config._attn_implementation
    found = probe(policy)
    wanted = FAMILIES[family][2]
    assert policy.paths == found.paths == Paths(attention=wanted)
    assert policy.model.config._attn_implementation == (NAME if wanted == "tree" else plain)
    assert policy.compute_dtype is PRECISIONS[precision][1]
    if wanted == "tree":
        assert found.messages == ()
    else:
        (message,) = found.messages
        assert message.startswith(
            f"{type(policy.model).__name__} does not compute a token tree as its branches run alone: its log-probs differ by up to "
        )
        assert message.endswith("; branches are run one by one, which costs time.")


def test_the_probe_tree_has_what_can_go_wrong():
    """A fork, a second level, a second tree, and targets that open a branch. Written by hand in probe.py, checked here by walking."""
    tree = probe_tree(97)
    assert (tree.T, len(tree.nodes), sum(n.parent < 0 for n in tree.nodes)) == (22, 5, 2)
    for number, node in enumerate(tree.nodes):
        path = path_to(tree, number).tolist()
        assert tree.position_T[path].tolist() == list(range(len(path)))
        for index, source in zip(tree.index_N.tolist(), tree.source_N.tolist(), strict=True):
            if node.start <= index < node.end:
                assert path.index(source) == path.index(index) - 1
    assert {8, 12, 15} <= set(tree.index_N.tolist())


# Toys that are wrong in one way each. `monkeypatch` is undone after each test.


def ignores_the_tree(policy, monkeypatch):
    """Causal over the flat row, whatever the layout says."""

    def flat(query, key, value, layout, options):
        return attention._masked(query, key, value, None, options, causal=True)

    for name in ("sdpa", "dense"):
        monkeypatch.setitem(attention.BACKENDS, name, flat)


def leaks_a_sibling(policy, monkeypatch):
    """One branch sees one token of its sibling."""

    def backend(query, key, value, layout, options):
        mask = layout.dense_mask()
        mask[13:15, 11] = True
        return attention._masked(query, key, value, mask, options)

    monkeypatch.setitem(attention.BACKENDS, "sdpa", backend)


def misses_its_parent(policy, monkeypatch):
    """Branches do not see the last token of the prompt."""

    def backend(query, key, value, layout, options):
        mask = layout.dense_mask()
        mask[8:18, 7] = False
        return attention._masked(query, key, value, mask, options)

    monkeypatch.setitem(attention.BACKENDS, "sdpa", backend)


def counts_flat_positions(policy, monkeypatch):
    """Positions along the row, not along the tree."""
    inner = policy.model.base_model.forward
    monkeypatch.setattr(policy.model.base_model, "forward", lambda position_ids=None, **kw: inner(position_ids=None, **kw))


def has_a_memory(policy, monkeypatch, strength=0.1):
    """A layer that adds some of the token before, in the row: the smallest recurrence."""

    def add_previous(module, inputs, out):
        hidden = out[0] if isinstance(out, tuple) else out
        mixed = hidden + strength * torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], 1)
        return (mixed, *out[1:]) if isinstance(out, tuple) else mixed

    policy.model.model.layers[0].register_forward_hook(add_previous)


@pytest.mark.parametrize("error", [AssertionError, RuntimeError])
def test_a_kernel_that_fails_gives_way_to_calls_per_node(monkeypatch, error):
    """As on a GPU whose compiler fails: two ways to run trees are tried there."""

    def fails(*_):
        raise error("no kernel\nand many lines more")

    monkeypatch.setattr(attention, "_best", lambda *_: "fails")
    monkeypatch.setitem(attention.BACKENDS, "fails", fails)
    policy = policy_of("llama", "bfloat16 compute")
    with torch.no_grad():
        found = _choose(policy, probe_tree(97), (*TREES, *BRANCHES), policy.model.config._attn_implementation, False)
    assert found.paths == Paths(backend="sdpa")
    assert found.messages == (
        "LlamaForCausalLM's attention cannot be computed by the kernel for trees on this device: "
        f"it fails ({error.__name__}: no kernel); it is called for each node, slower.",
    )


LEAKS = [ignores_the_tree, leaks_a_sibling, misses_its_parent, counts_flat_positions, has_a_memory]


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16 compute"])
@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_caught(leak, precision, monkeypatch):
    """In whatever precision the model is trained: the probe looks in float32 where the weights are."""
    policy = policy_of("llama", precision)
    leak(policy, monkeypatch)
    found = probe(policy)
    assert found.paths == Paths(attention="branches")
    assert "does not compute a token tree as its branches run alone: its log-probs differ by up to" in found.messages[0]


def has_a_strong_memory(policy, monkeypatch):
    has_a_memory(policy, monkeypatch, strength=1.0)


@pytest.mark.parametrize("leak", [ignores_the_tree, counts_flat_positions, has_a_strong_memory])
def test_a_large_leak_is_caught_under_bfloat16_weights(leak, monkeypatch):
    policy = policy_of("llama", "bfloat16")
    leak(policy, monkeypatch)
    assert probe(policy).paths == Paths(attention="branches")


def test_a_window_that_is_ignored_is_caught(monkeypatch):
    right = attention._tree_mask
    monkeypatch.setattr(attention, "_tree_mask", lambda *, local_size=None, **kwargs: right(**kwargs))
    assert probe(policy_of("mistral-sliding")).paths.attention == "branches"


@pytest.mark.parametrize("option", ["softcap", "sinks"])
def test_a_score_option_that_is_ignored_is_caught(option, monkeypatch):
    right = attention._masked

    def without(query, key, value, mask, options, **kwargs):
        plain = attention._Options(
            **{"scaling": options.scaling, "dropout": 0.0, "softcap": options.softcap, "sinks": options.sinks, option: None}
        )
        return right(query, key, value, mask, plain, **kwargs)

    monkeypatch.setattr(attention, "_masked", without)
    assert probe(policy_of({"softcap": "gemma2", "sinks": "gpt-oss"}[option])).paths.attention == "branches"


def test_a_head_that_does_more_is_caught():
    """Logits changed after the projection: neither tree nor branches can use the chunked head."""
    policy = policy_of("llama")
    inner = policy.model.forward

    def forward(**kwargs):
        out = inner(**kwargs)
        out.logits = out.logits * 1.1
        return out

    policy.model.forward = forward
    found = probe(policy)
    assert found.paths == Paths(attention="branches", head="model")
    assert len(found.messages) == 2
    assert found.messages[1].startswith("LlamaForCausalLM's head is not a plain projection: its log-probs differ by up to ")
    assert found.messages[1].endswith("; the model's own logits are used, which costs memory.")


def test_a_model_that_fails_on_a_tree_is_run_by_branches(monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel for this shape\nand more")

    monkeypatch.setitem(attention.BACKENDS, "sdpa", broken)
    found = probe(policy_of("llama"))
    assert found.paths == Paths(attention="branches")
    assert found.messages == (
        "LlamaForCausalLM does not compute a token tree as its branches run alone: it fails (RuntimeError: no kernel for this shape); "
        "branches are run one by one, which costs time.",
    )


def test_not_a_number_is_not_equal(monkeypatch):
    monkeypatch.setitem(attention.BACKENDS, "sdpa", lambda query, *_: torch.full_like(query, float("nan")))
    assert probe(policy_of("llama")).paths.attention == "branches"


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_the_policy_as_it_was(training):
    policy = policy_of("llama", "bfloat16 compute", attention_dropout=0.3)
    policy.train(training)
    before = {n: p.clone() for n, p in policy.named_parameters()}
    state = torch.get_rng_state()
    probe(policy)
    assert policy.training is training
    assert policy.model.training is training
    assert torch.equal(torch.get_rng_state(), state), "nothing random is drawn"
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in policy.named_parameters())


def test_branches_as_asked():
    policy = policy_of("llama")
    plain = policy.model.config._attn_implementation
    assert probe(policy, wanted="branches").paths == Paths(attention="branches")
    assert policy.model.config._attn_implementation == plain


def test_tree_as_asked():
    assert probe(policy_of("llama"), wanted="tree").paths == Paths()
    with pytest.raises(ModelError, match="^attn_implementation='tree' was asked for, and MambaForCausalLM does not compute a token tree"):
        probe(policy_of("mamba"), wanted="tree")
