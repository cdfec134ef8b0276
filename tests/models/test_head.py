"""The head taken apart gives the logits that the model itself gives: bias, scale, soft cap, temperature, adapters."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from burnish.models.head import HeadError, head_of
from burnish.models.policy import Paths, Policy
from burnish.ops.logprobs import chunked_logprobs, dense_logprobs
from tests.laws.trees import make_tree
from tests.models.families import VOCABULARY, tiny_model

pytestmark = pytest.mark.usefixtures("float64")
PHI = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}


def phi():
    """Phi's head has a bias."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("phi", **PHI, bos_token_id=1, eos_token_id=2)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


MODELS = {
    "plain": lambda: tiny_model("llama"),
    "tied": lambda: tiny_model("llama-tied"),
    "bias": phi,
    "scale that multiplies": lambda: tiny_model("cohere", logit_scale=0.25),
    "scale that divides": lambda: tiny_model("granite", logits_scaling=4.0),
    "soft cap": lambda: tiny_model("gemma2", final_logit_softcapping=1.0),
    "no embedding scale in the head": lambda: tiny_model("gemma3"),
}


def own_logits(model, ids, temperature):
    return model(input_ids=ids, use_cache=False).logits[0] / temperature


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("name", MODELS)
def test_the_parts_give_the_models_logits(name, temperature):
    model = MODELS[name]()
    ids = torch.randint(0, VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(0))
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    targets = ids[0].roll(-1)
    found = chunked_logprobs(head_of(model, hidden, temperature=temperature), targets, chunk_rows=2)
    for one, other in zip(found, dense_logprobs(own_logits(model, ids, temperature), targets), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_each_option_is_read_from_the_model():
    """So that the test above does not pass because an option was 1 or absent."""
    hidden = torch.zeros(1, 32, dtype=torch.float64)
    heads = {name: head_of(make(), hidden) for name, make in MODELS.items()}
    assert {n for n, h in heads.items() if h.bias is not None} == {"bias"}
    assert {n: h.scale for n, h in heads.items() if h.scale != 1.0} == {"scale that multiplies": 0.25, "scale that divides": 0.25}
    assert {n: h.softcap for n, h in heads.items() if h.softcap} == {"soft cap": 1.0}


def adapted(**options):
    torch.manual_seed(1)
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=3, lora_alpha=5, init_lora_weights=False, **options)).double()
    return model.eval()


def check(model):
    base = model.get_base_model()
    ids = torch.randint(0, VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(0))
    hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    found = chunked_logprobs(head_of(base, hidden), ids[0])[0]
    assert (found - dense_logprobs(own_logits(model, ids, 1.0), ids[0])[0]).abs().max() <= 1e-10
    return found.detach()


def test_adapters_on_the_head():
    """Plain, disabled, merged, two at once, one of two: each as PEFT itself computes it, and each another result."""
    model = adapted(target_modules=["lm_head"])
    results = [check(model)]
    with model.disable_adapter():
        results.append(check(model))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    model.double()
    model.base_model.set_adapter(["default", "second"])
    results.append(check(model))
    model.set_adapter("second")
    results.append(check(model))
    model.merge_adapter(["second"])
    assert torch.allclose(check(model), results[-1], atol=1e-10)
    gaps = [(a - b).abs().max() for i, a in enumerate(results) for b in results[:i]]
    assert min(gaps) > 1e-3


def test_a_head_that_is_trained_whole_and_saved_with_the_adapter():
    model = adapted(target_modules=["q_proj"], modules_to_save=["lm_head"])
    with torch.no_grad():
        model.get_base_model().lm_head.modules_to_save["default"].weight.add_(0.1 * torch.randn(VOCABULARY, 32, dtype=torch.float64))
    trained = check(model)
    with model.disable_adapter():
        assert (check(model) - trained).abs().max() > 1e-3


def test_dropout_on_the_heads_adapter_is_honoured():
    """With p near 1 nothing is left of the adapter in training, and all of it in evaluation."""
    model = adapted(target_modules=["lm_head"], lora_dropout=0.999999)
    tree, policy = make_tree(VOCABULARY), Policy(model, paths=Paths(attention="branches"))
    evaluated = policy(tree).logp_N
    with model.disable_adapter():
        without = policy(tree).logp_N
    policy.train()
    assert (policy(tree).logp_N - without).abs().max() <= 1e-9
    assert (evaluated - without).abs().max() > 0.1


def test_a_model_without_a_head_is_refused():
    with pytest.raises(HeadError, match=r"^LlamaModel has no output embeddings; use a causal language model\.$"):
        head_of(tiny_model("llama").model, torch.zeros(1, 32, dtype=torch.float64))


def test_a_head_of_another_kind_is_refused():
    model = tiny_model("llama")
    model.lm_head = torch.nn.Sequential(model.lm_head)
    with pytest.raises(HeadError) as caught:
        head_of(model, torch.zeros(1, 32, dtype=torch.float64))
    assert str(caught.value) == "The output head is a Sequential, and the chunked head knows linear layers and LoRA on them."
