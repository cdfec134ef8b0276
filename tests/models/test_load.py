"""Models and tokenizers by name, adapters, dropout: what is refused, and that every switch does what it says."""

import json

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig

from burnish.config.model import ModelConfig
from burnish.models.load import (
    ModelError,
    adapt_tokenizer,
    choose_compute_dtype,
    disable_dropout,
    load_model,
    load_tokenizer,
    stop_token_ids,
)
from burnish.models.lora import add_adapter, lora_config, untrained_parameters
from tests.laws.methods import tokenizer
from tests.models.families import tiny_model

CPU = torch.device("cpu")
IDS = torch.arange(3, 30)[None]
DROPOUTS = {
    "llama": {"attention_dropout": 0.5},
    "qwen3-moe": {"attention_dropout": 0.5},
    "gemma2": {"attention_dropout": 0.5},
    "gpt-oss": {"attention_dropout": 0.5},
    "phi3": {"attention_dropout": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
    "gpt2": {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
    "gpt-neox": {"attention_dropout": 0.5, "hidden_dropout": 0.5},
    "granite": {"attention_dropout": 0.5},
    "cohere": {"attention_dropout": 0.5},
}


@torch.no_grad()
@pytest.mark.parametrize("family", DROPOUTS)
def test_dropout_is_disabled_everywhere(family):
    """In training mode, with every dropout of the configuration at one half and one in an adapter."""
    model = tiny_model(family, **DROPOUTS[family])
    target = {"gpt2": "c_attn", "gpt-neox": "query_key_value", "phi3": "qkv_proj"}.get(family, "q_proj")
    model = add_adapter(model, LoraConfig(r=2, lora_dropout=0.5, target_modules=[target], init_lora_weights=False)).double()
    wanted = model.eval()(IDS, use_cache=False).logits
    model.train()
    assert not torch.equal(model(IDS, use_cache=False).logits, wanted), "there is dropout to disable"
    disable_dropout(model)
    assert torch.equal(model(IDS, use_cache=False).logits, wanted)


def test_compute_dtype():
    assert choose_compute_dtype("float32", CPU) == (torch.float32, "as asked")
    assert choose_compute_dtype("bfloat16", CPU) == (torch.bfloat16, "as asked")
    with pytest.raises(ModelError) as caught:
        choose_compute_dtype("float16", CPU)
    assert str(caught.value) == "compute_dtype='float16' needs loss scaling, which Burnish does not do; use 'bfloat16' or 'float32'."


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        ({}, (torch.float32, "this CPU has no bfloat16 units")),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, (torch.float32, "this CPU has no bfloat16 units")),
        ({"avx512_bf16": True}, (torch.bfloat16, "this CPU multiplies bfloat16")),
        ({"amx_bf16": True}, (torch.bfloat16, "this CPU multiplies bfloat16")),
    ],
)
def test_the_compute_dtype_goes_by_the_hardware(monkeypatch, capabilities, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_compute_dtype("auto", CPU) == wanted
    assert choose_compute_dtype("auto", CPU, torch.bfloat16) == (torch.bfloat16, "as the weights")
    assert choose_compute_dtype("auto", CPU, torch.float64) == (torch.float64, "as the weights")


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float16])
def test_weights_hold_what_is_computed_with(weights):
    sentence = f"Weights in {str(weights)[6:]} cannot be computed with in float32 (as asked); load them with dtype='float32'."
    with pytest.raises(ModelError) as caught:
        choose_compute_dtype("float32", CPU, weights)
    assert str(caught.value) == sentence


@pytest.fixture
def folder(tmp_path):
    tiny_model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("dtype", "wanted"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_master_weights_are_float32_unless_asked_otherwise(folder, dtype, wanted):
    """Whatever dtype they were saved in."""
    model = load_model(ModelConfig(model_name_or_path=str(folder), dtype=dtype), CPU)
    assert {p.dtype for p in model.parameters()} == {wanted}


@pytest.mark.parametrize(("load", "what"), [(lambda c: load_model(c, CPU), "The model"), (load_tokenizer, "The tokenizer of")])
def test_a_folder_without_a_model(tmp_path, load, what):
    with pytest.raises(ModelError) as caught:
        load(ModelConfig(model_name_or_path=str(tmp_path)))
    said = str(caught.value)
    assert said.startswith(f"{what} {str(tmp_path)!r} could not be loaded (")
    assert said.endswith("); give a folder with a transformers model, or a hub id.")
    assert "\n" not in said


def test_a_saved_adapter_is_loaded_on_its_base_and_trains(folder, tmp_path):
    model = add_adapter(load_model(ModelConfig(model_name_or_path=str(folder)), CPU), LoraConfig(r=2, target_modules=["q_proj"]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    for config in (
        ModelConfig(model_name_or_path=str(tmp_path / "adapter")),
        ModelConfig(model_name_or_path=str(folder), adapter_name_or_path=str(tmp_path / "adapter")),
    ):
        again = load_model(config, CPU)
        assert torch.equal(again(IDS).logits, model(IDS).logits)
        trained = [n for n, p in again.named_parameters() if p.requires_grad]
        assert len(trained) == 4
        assert all("lora_" in name for name in trained)


def test_end_of_sequence_and_template(tmp_path):
    template = tmp_path / "plain.jinja"
    template.write_text("{{ messages }}", encoding="utf-8")
    one = adapt_tokenizer(tokenizer(), chat_template_path=str(template), eos_token="w7")
    assert (one.eos_token, one.chat_template) == ("w7", "{{ messages }}")
    one.save_pretrained(tmp_path / "other")
    assert adapt_tokenizer(tokenizer(), chat_template_path=str(tmp_path / "other")).chat_template == "{{ messages }}"
    with pytest.raises(ModelError, match=r"^eos_token '<end>' is not in the tokenizer's vocabulary; choose one of its tokens\.$"):
        adapt_tokenizer(tokenizer(), eos_token="<end>")


def test_lora_flags():
    config = ModelConfig(
        use_peft=True, lora_r=4, lora_alpha=6, lora_dropout=0.25, lora_target_modules=["q_proj", "k_proj"], use_rslora=True, use_dora=True
    )
    found = lora_config(config)
    assert (found.r, found.lora_alpha, found.lora_dropout, found.use_rslora, found.use_dora) == (4, 6, 0.25, True, True)
    assert found.target_modules == {"q_proj", "k_proj"}
    assert lora_config(ModelConfig()) is None


@pytest.mark.parametrize("targets", ["all-linear", ["all-linear"]])
def test_all_linear_is_every_linear_layer_but_the_head(targets):
    model = add_adapter(tiny_model("llama"), lora_config(ModelConfig(use_peft=True, lora_target_modules=targets)))
    adapted = {n.split(".lora_A")[0].rsplit(".", 1)[1] for n, _ in model.named_parameters() if "lora_A" in n}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_an_unknown_family_gets_adapters_on_all_linear_layers():
    model = tiny_model("granite")
    model.config.model_type = "unheard-of"
    adapted = add_adapter(model, LoraConfig(r=2))
    assert sum("lora_A" in n for n, _ in adapted.named_parameters()) == 14


def test_adapters_that_are_refused():
    model = add_adapter(tiny_model("llama"), LoraConfig(r=2))
    with pytest.raises(ModelError) as caught:
        add_adapter(model, LoraConfig(r=2))
    assert str(caught.value) == "The model has an adapter already; pass peft_config=None to train that one, or merge it first."
    with pytest.raises(ModelError) as caught:
        add_adapter(tiny_model("llama"), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    assert str(caught.value) == "PromptTuningConfig learns prompts, which a token tree has no place for; use LoRA."


def test_what_peft_refuses_is_one_sentence():
    """Adapters on stacked experts have no dropout."""
    with pytest.raises(ModelError) as caught:
        add_adapter(tiny_model("qwen3-moe"), LoraConfig(r=2, lora_dropout=0.1, target_modules="all-linear"))
    assert str(caught.value) == (
        "PEFT cannot add this adapter (lora.ParamWrapper does not work with lora_dropout != 0.); change its options or its target_modules."
    )


def test_untrained_parameters_are_named():
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 1, bias=False) for name in "abcd"})
    (model["a"](torch.ones(2)) + float("inf") * model["b"](torch.ones(2))).sum().backward()
    model["d"].requires_grad_(False)
    assert untrained_parameters(model) == ["b.weight", "c.weight"]


def test_stop_token_ids_are_what_the_generation_config_says(tmp_path):
    assert stop_token_ids(ModelConfig(model_name_or_path=str(tmp_path))) == ()
    for said, stops in ((None, ()), (7, (7,)), ([7, 9], (7, 9))):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
        assert stop_token_ids(ModelConfig(model_name_or_path=str(tmp_path))) == stops
