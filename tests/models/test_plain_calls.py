"""Outside a tree a model with tree attention is the model: plain calls, padding, caches and `generate` as it had them."""

import pytest
import torch

from burnish.models.attention import NAME, TreeAttentionError, register, tree_layout
from tests.laws.trees import make_tree
from tests.models.families import VOCABULARY, tiny_model

pytestmark = pytest.mark.usefixtures("float64")
FAMILIES = ["llama", "mistral-sliding", "gemma2", "gemma3", "gpt-oss", "gpt2"]
IDS = torch.randint(3, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=FAMILIES)
def models(request):
    """(with tree attention, as transformers computes it)."""
    register()
    ours, theirs = tiny_model(request.param), tiny_model(request.param)
    ours.set_attn_implementation(NAME)
    theirs.set_attn_implementation("eager")
    return ours, theirs


@torch.no_grad()
def test_a_plain_call(models):
    ours, theirs = models
    assert (ours(IDS).logits - theirs(IDS).logits).abs().max() <= 1e-10


@torch.no_grad()
def test_a_batch_with_left_padding(models):
    ours, theirs = models
    mask = torch.ones_like(IDS)
    mask[0, :5] = mask[1, :2] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    seen = mask.bool()
    both = [model(IDS, attention_mask=mask, position_ids=positions).logits[seen] for model in models]
    assert (both[0] - both[1]).abs().max() <= 1e-10
    alone = ours(IDS[:1, 5:]).logits[0]
    assert (both[0][:6] - alone).abs().max() <= 1e-10, "the padding is not seen"
    assert theirs is models[1]


@torch.no_grad()
def test_a_cache(models):
    ours, theirs = models
    for step in (1, 3):
        found = []
        for model in models:
            past = model(IDS[:, :6], use_cache=True).past_key_values
            found.append(model(IDS[:, 6 : 6 + step], past_key_values=past, use_cache=True).logits)
        assert (found[0] - found[1]).abs().max() <= 1e-10
    assert ours is not theirs


def test_generate(models):
    mask = torch.ones_like(IDS)
    mask[0, :4] = 0
    ours, theirs = (
        model.generate(IDS, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=None) for model in models
    )
    assert ours.shape == (3, 19)
    assert ours.tolist() == theirs.tolist()


def test_a_gradient(models):
    ours, theirs = models
    for model in models:
        model(IDS, labels=IDS).loss.backward()
    assert all(
        (p.grad - q.grad).abs().max() <= 1e-10 for p, q in zip(ours.parameters(), theirs.parameters(), strict=True) if p.grad is not None
    )


@torch.no_grad()
def test_after_a_tree_it_is_plain_again(models):
    ours, theirs = models
    tree = make_tree(VOCABULARY)
    with tree_layout(tree):
        ours(tree.token_ids_T[None], position_ids=tree.position_T[None], use_cache=False)
    assert (ours(IDS).logits - theirs(IDS).logits).abs().max() <= 1e-10


@torch.no_grad()
def test_a_call_of_another_length_inside_a_tree_is_refused():
    register()
    model = tiny_model("llama")
    model.set_attn_implementation(NAME)
    with tree_layout(make_tree(VOCABULARY)), pytest.raises(TreeAttentionError) as caught:
        model(IDS[:1])
    assert str(caught.value) == "The model sees 11 tokens where the tree has 41; run it branch by branch."


@torch.no_grad()
def test_a_batch_inside_a_tree_is_refused():
    register()
    model, tree = tiny_model("llama"), make_tree(VOCABULARY)
    model.set_attn_implementation(NAME)
    with tree_layout(tree), pytest.raises(TreeAttentionError) as caught:
        model(tree.token_ids_T[None].expand(2, -1), use_cache=False)
    assert str(caught.value) == "A token tree is one row, and the model's attention sees 2; run it branch by branch."
