"""Reward models: a score for each token that is read, as transformers' own classifiers give it; and what they hold in memory."""

from dataclasses import replace

import pytest
import torch

from burnish.config.sft import SFTConfig
from burnish.data.tree import build_tree
from burnish.models.load import load_model
from burnish.models.lora import untrained_parameters
from burnish.models.memory import Placement, estimate_memory, skeleton_policy
from burnish.models.policy import Paths
from burnish.models.probe import probe, probe_tree
from burnish.models.scorer import Scorer
from burnish.models.trace import TraceError
from burnish.types import Branch, Segment
from tests.models.families import FAMILIES, VOCABULARY, tiny_scorer
from tests.models.scorers import AUTO, CPU, LABELS, alone, config, pair, scorer_of

WITHOUT = {
    "cohere": set(AUTO),
    "granite": set(AUTO),
    "mamba": set(AUTO),
    "olmo": {"process_reward"},
    "olmo2": {"process_reward"},
    "gemma3": {"process_reward"},
}
"""What transformers has no classifier for."""
KINDS = [(family, kind) for family in FAMILIES for kind in AUTO if kind not in WITHOUT.get(family, ())]


@torch.no_grad()
@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_a_tree_is_its_branches_alone_is_transformers(family, kind):
    plain, tree = tiny_scorer(family, kind), probe_tree(VOCABULARY)
    wanted = alone(plain, tree)
    assert wanted.shape == (tree.N, LABELS[kind])
    assert wanted.std(0).min() > 0.01
    for paths in (Paths(), Paths(attention="branches"), Paths(attention="branches", head="model")):
        if paths.attention == "tree" and FAMILIES[family][2] != "tree":
            continue
        found = scorer_of(family, kind, paths)(tree)
        assert found.aux_loss is None
        assert found.score_NK.dtype == torch.float64
        torch.testing.assert_close(found.score_NK, wanted, atol=1e-5, rtol=1e-5)  # models compute norms and softmax in float32


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_probe(family, kind):
    scorer = Scorer(tiny_scorer(family, kind, dtype=torch.float32, pad_token_id=3))
    found = probe(scorer)
    assert found.paths == scorer.paths == Paths(attention=FAMILIES[family][2])
    if FAMILIES[family][2] == "branches":
        assert "does not compute a token tree as its branches run alone: its scores differ by up to " in found.messages[0]
    else:
        assert found.messages == ()


@pytest.mark.parametrize("pad", sorted(set(probe_tree(VOCABULARY).token_ids_T.tolist()))[:8])
def test_padding_in_the_probe_does_not_matter(pad):
    """transformers passes over it at the end of a row, and a real row never ends with it."""
    assert probe(Scorer(tiny_scorer("llama", dtype=torch.float32, pad_token_id=pad))).messages == ()


@pytest.mark.parametrize("kind", AUTO)
def test_a_head_that_does_more_is_caught(kind):
    scorer = Scorer(tiny_scorer("llama", kind, dtype=torch.float32))
    inner = scorer.model.forward

    def forward(**kwargs):
        out = inner(**kwargs)
        out.logits = out.logits * 1.1
        return out

    scorer.model.forward = forward
    found = probe(scorer)
    assert found.paths == Paths(attention="branches", head="model")
    assert found.messages[1].startswith("LlamaFor")
    assert "'s head is not a plain projection: its scores differ by up to " in found.messages[1]
    tree = probe_tree(VOCABULARY)
    torch.testing.assert_close(scorer(tree).score_NK, 1.1 * Scorer(scorer.model, paths=Paths(attention="branches"))(tree).score_NK)


@pytest.mark.parametrize("attention", ["tree", "branches"])
@pytest.mark.parametrize("kind", AUTO)
def test_gradients_reach_the_head_and_all_below_it(kind, attention):
    """And are those of transformers' own forward of the two rows."""
    scorer, plain, tree = scorer_of("llama", kind, Paths(attention=attention)), tiny_scorer("llama", kind), build_tree([pair()])
    weights = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    (weights * scorer(tree).score_NK).sum().backward()
    (weights * alone(plain, tree)).sum().backward()
    assert untrained_parameters(scorer.model) == []
    for (name, mine), its in zip(scorer.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-6, rtol=1e-5, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("attention", ["tree", "branches"])
def test_a_tree_without_targets_gives_every_parameter_a_gradient(attention):
    """A rank's filler. Of zeros."""
    scorer = scorer_of("llama", paths=Paths(attention=attention))
    nothing = replace(pair(), branches=(Branch(segments=(Segment(token_ids=[3], source="template", trained=False),)),), prompt=())
    out = scorer(build_tree([nothing]))
    assert out.score_NK.shape == (0, 1)
    out.score_NK.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in scorer.parameters())


def test_dropout_before_the_head_is_the_models_own():
    scorer = scorer_of("llama", "process_reward", classifier_dropout=0.5)
    tree, wanted = probe_tree(VOCABULARY), scorer(probe_tree(VOCABULARY)).score_NK
    scorer.train()
    assert not torch.equal(scorer(tree).score_NK, wanted)


def test_scores_are_float32_at_least():
    scorer = scorer_of("llama", dtype=torch.float32)
    scorer.compute_dtype = torch.bfloat16
    assert scorer(probe_tree(VOCABULARY)).score_NK.dtype == torch.float32
    assert scorer_of("llama", dtype=torch.bfloat16)(probe_tree(VOCABULARY)).score_NK.dtype == torch.float32


@pytest.mark.parametrize("paths", [Paths(), Paths(attention="branches"), Paths(attention="branches", head="model")])
def test_the_balance_of_experts_is_asked_for(paths):
    scorer = scorer_of("qwen3-moe", paths=paths)
    scorer.aux_loss = True
    assert scorer(probe_tree(VOCABULARY)).aux_loss.item() > 0


# Memory


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_is_traced_and_has_no_vocabulary(folder, kind, checkpointing):
    args = SFTConfig(gradient_checkpointing=checkpointing)
    scorer = skeleton_policy(config(folder), args, torch.float32, kind)
    assert isinstance(scorer, Scorer)
    held = estimate_memory(scorer, args, Placement()).held(512)
    assert held.rough == ""
    causal = estimate_memory(skeleton_policy(config(folder), args, torch.float32), args, Placement()).held(512)
    assert held.head - held.saved < 0.5 * (causal.head - causal.saved)
    real = load_model(config(folder), CPU, kind)
    if checkpointing:
        real.gradient_checkpointing_enable({"use_reentrant": False})
    assert estimate_memory(Scorer(real, compute_dtype=torch.float32), args, Placement()).held(512) == held


def test_memory_by_a_rule_of_thumb_has_no_vocabulary(folder, monkeypatch):
    def refuse(*_, **__):
        raise TraceError("so")

    monkeypatch.setattr("burnish.models.memory.trace_microbatch", refuse)
    scorer = skeleton_policy(config(folder), SFTConfig(), torch.float32, "reward")
    held = estimate_memory(scorer, SFTConfig(), Placement()).held(512)
    assert (held.head, held.rough) == (held.saved, "so")
