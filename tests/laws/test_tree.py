"""Law *tree*: a tree equals its branches run alone, in log-probs and in gradients, for each way of running it.

The truth is transformers' own forward on each path, with the attention that the model comes with; nothing of the library
takes part in it. Models compute in float64 throughout.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from burnish.models.attention import NAME, TreeAttentionError, register
from burnish.models.policy import Paths, Policy
from tests.laws.exact import distance, gradients
from tests.laws.trees import FOREST, alone, make_tree
from tests.models.families import FAMILIES, VOCABULARY, tiny_model

pytestmark = pytest.mark.usefixtures("float64")

WAYS = {
    "sdpa": Paths(backend="sdpa"),
    "dense": Paths(backend="dense"),
    "branches": Paths(attention="branches"),
    "branches, model's head": Paths(attention="branches", head="model"),
}
TREES = [n for n, (_, _, way) in FAMILIES.items() if way == "tree"]
SLIDING = ["mistral-sliding", "gemma2", "gemma3", "gpt-oss"]
"""Windows of 5 tokens, in paths of up to 19."""


def policy_of(model, paths):
    register()
    if paths.attention == "tree":
        (model.get_base_model() if hasattr(model, "get_base_model") else model).set_attn_implementation(NAME)
    return Policy(model, paths=paths)


def weights_of(tree):
    """One weight for each target, so that no two of them can stand in for each other."""
    return torch.randn(tree.N, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def compare(model, truth_model, tree, paths):
    """(largest difference of a log-prob, distance of the gradients)."""
    weights = weights_of(tree)
    wanted = alone(truth_model, tree)
    (wanted * weights).sum().backward()
    found = policy_of(model, paths)(tree).logp_N
    (found * weights).sum().backward()
    return float((found - wanted).detach().abs().max()), distance(gradients(model), gradients(truth_model))


def twins(family, **changes):
    return tiny_model(family, **changes), tiny_model(family, **changes)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, way):
    if family not in TREES and WAYS[way].attention == "tree":
        pytest.skip("the probe runs this family branch by branch")
    logp, gradient = compare(*twins(family), make_tree(VOCABULARY), WAYS[way])
    assert logp <= 1e-10
    assert gradient <= 1e-10


def test_the_forest_is_deep_branched_and_longer_than_the_windows():
    tree = make_tree(VOCABULARY)
    parents = [parent for _, parent in FOREST]
    assert max(map(parents.count, (0, 1))) == 3
    assert (tree.T, int(tree.position_T.max())) == (41, 18)
    opening = {node.start for node in tree.nodes if node.parent >= 0} & set(tree.index_N.tolist())
    assert len(opening) >= 3, "tokens that open a branch are targets too"


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("backend", ["sdpa", "dense"])
def test_random_forests(backend, seed):
    """Shapes drawn at random, nodes of one token and chains of single children among them."""
    rng = np.random.default_rng(seed)
    tree = make_tree(VOCABULARY, [(int(rng.integers(1, 9)), int(rng.integers(-1, n))) for n in range(12)], seed=seed)
    logp, gradient = compare(*twins("gemma3"), tree, WAYS[backend])
    assert max(logp, gradient) <= 1e-10


@pytest.mark.parametrize("way", WAYS)
def test_targets_in_any_order(way):
    tree = make_tree(VOCABULARY)
    mixed = torch.randperm(tree.N, generator=torch.Generator().manual_seed(0))
    turned = replace(tree, index_N=tree.index_N[mixed], source_N=tree.source_N[mixed], branch_N=tree.branch_N[mixed])
    policy = policy_of(tiny_model("llama"), WAYS[way])
    assert (policy(turned).logp_N - policy(tree).logp_N[mixed]).abs().max() <= 1e-12


@pytest.mark.parametrize("family", ["llama", "mistral-sliding", "gemma3", "gpt-oss", "qwen3-moe"])
@pytest.mark.parametrize("way", WAYS)
def test_gradient_checkpointing(family, way):
    model, truth = twins(family)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train(), truth.train()
    calls, tree = [], make_tree(VOCABULARY)
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    logp, gradient = compare(model, truth, tree, WAYS[way])
    assert max(logp, gradient) <= 1e-10
    runs = 1 if WAYS[way].attention == "tree" else len(set(tree.branch_N.tolist()))
    assert len(calls) == 2 * runs, "each layer ran once more in the backward"


ADAPTERS = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "rank-stabilised head": {"target_modules": ["lm_head"], "use_rslora": True},
    "head trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "DoRA in the layers": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
}


def adapted(family, options):
    model = tiny_model(family)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=7, **options)).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)  # a fresh adapter is zero there and would hide a missing factor
    return model.eval()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", ADAPTERS.values(), ids=ADAPTERS.keys())
@pytest.mark.parametrize("family", ["llama", "gpt-oss"])
def test_adapters(family, options, way):
    logp, gradient = compare(adapted(family, options), adapted(family, options), make_tree(VOCABULARY), WAYS[way])
    assert max(logp, gradient) <= 1e-10


@pytest.mark.parametrize("way", ["sdpa", "dense"])
def test_adapters_with_gradient_checkpointing(way):
    """Nothing before the first adapter needs a gradient, and the recomputed layers still see the tree."""
    model, truth = adapted("gemma3", ADAPTERS["head"]), adapted("gemma3", ADAPTERS["head"])
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train(), truth.train()
    assert max(compare(model, truth, make_tree(VOCABULARY), WAYS[way])) <= 1e-10


def test_an_adapter_on_a_tied_head_and_a_disabled_one():
    model, truth, tree = adapted("llama-tied", ADAPTERS["head"]), adapted("llama-tied", ADAPTERS["head"]), make_tree(VOCABULARY)
    assert max(compare(model, truth, tree, WAYS["sdpa"])) <= 1e-10
    with_adapter = alone(truth, tree)
    with model.disable_adapter(), truth.disable_adapter():
        without = alone(truth, tree)
        assert (policy_of(model, WAYS["sdpa"])(tree).logp_N - without).abs().max() <= 1e-10
    assert (with_adapter - without).abs().max() > 0.1


@pytest.mark.parametrize("temperature", [0.3, 1.7])
@pytest.mark.parametrize("way", WAYS)
def test_temperature(way, temperature):
    model, truth = twins("gemma2")
    tree, policy = make_tree(VOCABULARY), policy_of(model, WAYS[way])
    policy.temperature = temperature
    assert (policy(tree).logp_N - alone(truth, tree, temperature=temperature)).abs().max() <= 1e-10


@pytest.mark.parametrize("family", TREES)
def test_flex_forward(family):
    """FlexAttention has no backward on the CPU; its forward is compared here, its gradient below."""
    model, truth = twins(family)
    tree = make_tree(VOCABULARY)
    with torch.no_grad():
        gap = (policy_of(model, Paths(backend="flex"))(tree).logp_N - alone(truth, tree)).abs().max()
    assert gap <= 1e-10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels have gradients on a GPU only")
@pytest.mark.parametrize("backend", [None, "flex"], ids=str)
@pytest.mark.parametrize("family", TREES)
def test_gradients_of_kernels(family, backend):
    """In bfloat16, which kernels are for: no further from float64 than one such number is from the next, some layers on."""
    model, truth = twins(family, head_dim=64, hidden_size=256)
    model, tree = model.bfloat16().cuda(), make_tree(VOCABULARY)
    truth.load_state_dict({name: tensor.double().cpu() for name, tensor in model.state_dict().items()})
    weights = weights_of(tree)
    (alone(truth, tree) * weights).sum().backward()
    (policy_of(model, Paths(backend=backend))(tree.to(torch.device("cuda"))).logp_N * weights.float().cuda()).sum().backward()
    assert distance({n: g.cpu().double() for n, g in gradients(model).items()}, gradients(truth)) <= 0.1


def test_flex_refuses_dropout():
    model = tiny_model("llama", attention_dropout=0.1).train()
    with pytest.raises(TreeAttentionError, match=r"^FlexAttention has no dropout; set disable_dropout=True\.$"):
        policy_of(model, Paths(backend="flex"))(make_tree(VOCABULARY))


@pytest.mark.parametrize("backend", ["sdpa", "dense"])
def test_dropout_is_honoured(backend):
    """Zero attention: with p -> 1 nothing but the residual stream is left, which is what a model without attention gives."""
    tree, model = make_tree(VOCABULARY), tiny_model("llama", attention_dropout=0.999999)
    silent = copy.deepcopy(model)
    for layer in silent.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    wanted = policy_of(silent, WAYS[backend])(tree).logp_N
    policy = policy_of(model, WAYS[backend])
    assert (policy(tree).logp_N - wanted).abs().max() > 0.1, "in eval mode there is no dropout"
    policy.train()
    assert (policy(tree).logp_N - wanted).abs().max() <= 1e-10
