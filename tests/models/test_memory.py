"""The memory estimate against what is really held, and the micro-batch that follows from it."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from burnish.models import memory
from burnish.models.attention import NAME, register, tree_layout
from burnish.models.memory import MemoryEstimate, estimate_memory, microbatch_tokens
from burnish.models.policy import Policy
from burnish.ops.logprobs import CHUNK_ELEMENTS
from tests.laws.trees import make_tree
from tests.models.families import FAMILIES, tiny_model

CPU = torch.device("cpu")
HEAD = 3 * 4 * CHUNK_ELEMENTS["cpu"]


def estimate(model, optimizer="adamw", checkpointing=False):
    return estimate_memory(model, optimizer=optimizer, compute_bytes=4, gradient_checkpointing=checkpointing)


def test_what_is_counted_exactly():
    """Llama of 21,728 parameters in float32: 86,912 bytes, as much for gradients, twice as much for AdamW's moments."""
    found = estimate(tiny_model("llama", dtype=torch.float32))
    assert (found.weights, found.gradients, found.optimizer) == (86_912, 86_912, 173_824)
    assert found.head == HEAD + 4 * 97 * 32
    assert estimate(tiny_model("llama", dtype=torch.float32), "sgd").optimizer == 0
    assert estimate(tiny_model("llama", dtype=torch.float32), "muon").optimizer == 86_912


def test_tied_weights_are_counted_once():
    tied, apart = (estimate(tiny_model(name, dtype=torch.float32)).weights for name in ("llama-tied", "llama"))
    assert apart - tied == 4 * 97 * 32


def test_an_adapter_has_small_gradients():
    model = get_peft_model(tiny_model("llama", dtype=torch.float32), LoraConfig(r=2, target_modules=["q_proj"]))
    found = estimate(model)
    assert found.gradients == 4 * 2 * 2 * (32 + 32)
    assert found.optimizer == 2 * found.gradients
    assert found.weights == 86_912 + found.gradients


def kept_by_autograd(model, tree):
    """Bytes of every tensor that a forward of the backbone saves, weights left out."""
    policy, sizes = Policy(model), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy._backbone(tree.token_ids_T, tree.position_T)
    return sum(sizes.values())


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gemma3", "olmo2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_about_what_autograd_keeps(family, checkpointing):
    """Within a factor of two, on a row of 256 tokens through a model as wide as deep ones are, relative to its vocabulary."""
    register()
    wide = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 16, "num_hidden_layers": 6, "max_position_embeddings": 512}
    if family == "gemma3":
        wide["layer_types"] = ["full_attention"] * 6
    model = tiny_model(family, dtype=torch.float32, **wide).train()
    model.set_attn_implementation(NAME)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    tree = make_tree(97, ((256, -1),))
    with tree_layout(tree):
        held = kept_by_autograd(model, tree)
    expected = 256 * estimate(model, checkpointing=checkpointing).activations_per_token
    if checkpointing:  # the estimate adds the one layer that is recomputed, which is not held now
        expected -= 256 * (12 * 64 + 4 * 192) * 4
    assert 0.5 < expected / held < 2.0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_an_estimate(family):
    found = estimate(tiny_model(family, dtype=torch.float32))
    assert found.activations_per_token > 0
    assert estimate(tiny_model(family, dtype=torch.float32), checkpointing=True).activations_per_token < 2 * found.activations_per_token


def test_total_and_words():
    found = MemoryEstimate(weights=2**30, gradients=2**30, optimizer=2**31, activations_per_token=2**20, head=2**29)
    assert found.total(1024) == 2**30 + 2**30 + 2**31 + 2**29 + 2**30
    assert str(found) == "weights 1.00 GiB, gradients 1.00 GiB, optimizer 2.00 GiB, head 0.50 GiB"


@pytest.mark.parametrize(
    ("gib", "per_token", "tokens"),
    [
        (100, 2**20, 512),  # 60% of 100 GiB leave room for 57,344 tokens; the CPU is no faster above 512
        (8, 2**21, 256),  # 4.8 - 4 GiB = 409 tokens of 2 MiB: the power of two below
        (1, 2**21, 256),  # nothing fits, and a run must have some
    ],
)
def test_tokens_of_a_micro_batch(monkeypatch, gib, per_token, tokens):
    monkeypatch.setattr(memory, "device_memory", lambda device: gib * 2**30)
    one = MemoryEstimate(weights=2**30, gradients=2**30, optimizer=2**31, activations_per_token=per_token, head=0)
    assert microbatch_tokens(one, CPU) == tokens
    assert microbatch_tokens(replace(one, weights=0), CPU) >= tokens
