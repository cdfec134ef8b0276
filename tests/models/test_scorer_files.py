"""Reward models on disk: loaded with a new head or their own, with adapters, saved, and at the start of a run."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType

from burnish.config.model import ModelConfig
from burnish.config.sft import SFTConfig
from burnish.distributed.launch import Launch
from burnish.models.export import check_export, merge_adapter, sample_logits, save_model
from burnish.models.load import ModelError, load_model, load_skeleton
from burnish.models.lora import add_adapter, lora_config, untrained_parameters
from burnish.models.padding import set_padding
from burnish.models.policy import Paths
from burnish.models.probe import probe, probe_tree
from burnish.models.scorer import Scorer
from burnish.models.start import start_policy
from tests.laws.methods import tokenizer
from tests.models.families import VOCABULARY, tiny_model, tiny_scorer
from tests.models.scorers import AUTO, CPU, LABELS, alone, config, with_pad


@pytest.mark.parametrize("kind", AUTO)
def test_any_causal_model_is_loaded_with_a_new_head(folder, kind):
    said, heads = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = load_model(config(folder), CPU, kind, said.append)
        heads.append(model.score.weight)
    assert set(said) == {f"The score head of {folder} is new: small random weights, drawn by the run's seed."}
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert 0.005 < heads[0].std() < 0.05
    causal = tiny_model("llama", dtype=torch.float32).state_dict()
    assert all(torch.equal(tensor, causal[name]) for name, tensor in model.state_dict().items() if not name.startswith("score"))
    assert {p.dtype for p in load_model(config(folder, dtype="bfloat16"), CPU, kind).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_saved_reward_model_keeps_its_head(tmp_path, family, kind):
    model, said = tiny_scorer(family, kind, dtype=torch.float32), []
    model.save_pretrained(tmp_path)
    again = load_model(config(tmp_path), CPU, kind, said.append)
    assert said == []
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


OTHER_LABELS = "is a classifier with {} labels, where this one has {}; give the model it was made from."
OTHER_KIND = "is a classifier of another kind than {}; give the model it was made from."


@pytest.mark.parametrize(
    ("family", "kind", "labels", "asked", "message"),
    [
        ("llama", "reward", 5, "reward", OTHER_LABELS.format(5, 1)),
        ("llama", "process_reward", 3, "process_reward", OTHER_LABELS.format(3, 2)),
        ("llama", "reward", 2, "process_reward", OTHER_KIND.format("AutoModelForTokenClassification")),
        ("gpt2", "reward", 2, "process_reward", OTHER_KIND.format("AutoModelForTokenClassification")),
        ("llama", "process_reward", 1, "reward", OTHER_KIND.format("AutoModelForSequenceClassification")),
    ],
)
def test_classifiers_of_another_kind_are_refused(tmp_path, family, kind, labels, asked, message):
    tiny_scorer(family, kind, dtype=torch.float32, num_labels=labels).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_model(config(tmp_path), CPU, asked)
    assert str(caught.value) == f"{tmp_path} {message}"


@pytest.mark.parametrize("load", [lambda c: load_model(c, CPU, "reward"), lambda c: load_skeleton(c, "reward")])
def test_a_family_without_classifiers_is_refused(tmp_path, load):
    tiny_model("cohere", dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load(config(tmp_path))
    assert str(caught.value) == (
        f"transformers has no AutoModelForSequenceClassification of the family of {tmp_path}; choose a model of another family."
    )


def test_weights_that_are_missing_below_the_head_are_refused(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"has no weights for model\.norm\.weight, 1 in all, which would start at random\.$"):
        load_model(config(folder), CPU, "reward")


# Adapters


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_head_trains_with_an_adapter(family, kind):
    target = ["c_attn"] if family == "gpt2" else "all-linear"
    model = add_adapter(tiny_scorer(family, kind), LoraConfig(r=2, target_modules=target, init_lora_weights=False), kind).double().eval()
    assert model.peft_config["default"].task_type == {"reward": TaskType.SEQ_CLS, "process_reward": TaskType.TOKEN_CLS}[kind]
    scorer = Scorer(model).eval()
    probe(scorer)
    assert scorer.paths == Paths()
    scorer(probe_tree(VOCABULARY)).score_NK.square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("modules_to_save" in name for name in trained)
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    assert untrained_parameters(model) == []
    tree, adapted = probe_tree(VOCABULARY), scorer(probe_tree(VOCABULARY)).score_NK
    with model.disable_adapter():
        torch.testing.assert_close(scorer(tree).score_NK, alone(tiny_scorer(family, kind), tree), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(adapted, alone(tiny_scorer(family, kind), tree), atol=1e-3)


@pytest.mark.parametrize(("kind", "task"), [("causal", "CAUSAL_LM"), ("reward", "SEQ_CLS"), ("process_reward", "TOKEN_CLS")])
def test_flags_describe_an_adapter_of_the_kind(kind, task):
    assert lora_config(ModelConfig(use_peft=True), kind).task_type == task


def test_an_adapter_of_another_kind_is_refused(folder, tmp_path):
    with pytest.raises(ModelError) as caught:
        add_adapter(tiny_scorer("llama"), LoraConfig(task_type="CAUSAL_LM"), "reward")
    assert str(caught.value) == "The adapter's task_type is CAUSAL_LM, and this model is for SEQ_CLS; set that, or none."
    add_adapter(load_model(config(folder), CPU), LoraConfig(r=2, task_type="CAUSAL_LM")).save_pretrained(tmp_path / "adapter")
    for named in (config(tmp_path / "adapter"), config(folder, adapter_name_or_path=str(tmp_path / "adapter"))):
        with pytest.raises(ModelError) as caught:
            load_model(named, CPU, "reward")
        assert str(caught.value) == (
            f"The adapter {str(tmp_path / 'adapter')!r} is one for CAUSAL_LM, and this model is for SEQ_CLS; merge it into its base first."
        )


# Saving


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_saved_model_is_read_by_transformers(tmp_path, family, kind):
    model, one = tiny_scorer(family, kind, dtype=torch.float32), with_pad(pad_token="</s>")
    set_padding(model, one)
    save_model(model, tmp_path, one)
    assert check_export(sample_logits(model), tmp_path, torch.float32) <= 1e-6
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["architectures"] == [type(model).__name__]
    assert len(said.get("id2label", {"0": 0, "1": 1})) == LABELS[kind]
    assert said["pad_token_id"] != 2
    other = tiny_scorer(family, kind, dtype=torch.float32, seed=1)
    with pytest.raises(ModelError, match="gives other logits than the trained one"):
        check_export(sample_logits(other), tmp_path, torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("kind", AUTO)
def test_a_saved_adapter_is_read_by_peft_loaded_again_and_merged(folder, tmp_path, kind):
    model = add_adapter(load_model(config(folder), CPU, kind), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False), kind)
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.normal_()
    last = int(torch.randint(0, VOCABULARY, (1, 16), generator=torch.Generator().manual_seed(0))[0, -1])
    one = with_pad(pad_token=tokenizer().convert_ids_to_tokens(last))  # the last token by which saved models are compared
    set_padding(model, one)
    model.eval()
    wanted, adapter = sample_logits(model), tmp_path / "adapter"
    save_model(model, adapter, one)
    assert check_export(wanted, adapter, torch.float32) == 0
    base = AUTO[kind].from_pretrained(folder, num_labels=LABELS[kind], pad_token_id=last, dtype=torch.float32)
    assert torch.equal(sample_logits(PeftModel.from_pretrained(base, adapter)), wanted)
    said = []
    for named in (config(adapter), config(folder, adapter_name_or_path=str(adapter))):
        again = load_model(named, CPU, kind, said.append)
        set_padding(again, one)
        assert torch.equal(sample_logits(again), wanted)
        assert any(p.requires_grad for name, p in again.named_parameters() if "modules_to_save" in name)
    assert said == [], "the head is the adapter's"
    merged = AUTO[kind].from_pretrained(merge_adapter(adapter, tmp_path / "merged"), dtype=torch.float32)
    torch.testing.assert_close(sample_logits(merged), wanted, atol=1e-5, rtol=1e-5)
    assert merged.config.pad_token_id == last


# A run's start


@pytest.mark.parametrize("kind", AUTO)
def test_a_run_starts(folder, kind):
    seen, one = [], with_pad(pad_token="</s>")
    args = SFTConfig(compute_dtype="float32", disable_dropout=True)
    torch.manual_seed(3)
    started = start_policy(str(folder), config(folder), args, None, one, Launch(), seen.append, kind=kind)
    assert isinstance(started.policy, Scorer)
    assert seen == [started.policy]
    assert started.policy.paths == Paths()
    name = {"reward": "LlamaForSequenceClassification", "process_reward": "LlamaForTokenClassification"}[kind]
    assert started.messages[0].startswith(f"{name}: ")
    assert [message.split(":")[0] for message in started.messages[1:]] == [
        f"The score head of {folder} is new",
        "Padding is <pad> from here on, for the model and for its tokenizer",
    ]
    assert started.wrapped(probe_tree(VOCABULARY)).score_NK.shape[1] == LABELS[kind]
    with torch.no_grad():
        assert started.policy.logits(torch.ones(1, 4, dtype=torch.long)).shape[-1] == LABELS[kind]
    lora = start_policy(str(folder), config(folder, use_peft=True), args, None, one, Launch(), seen.append, kind=kind)
    assert any("modules_to_save" in n for n, p in lora.policy.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "given", [tiny_model, lambda *a, **k: tiny_scorer(*a, **k, num_labels=3), lambda *a, **k: tiny_scorer(*a, "process_reward", **k)]
)
def test_a_given_model_of_another_kind_is_refused(given):
    model = given("llama", dtype=torch.float32)
    with pytest.raises(ModelError) as caught:
        start_policy(model, ModelConfig(), SFTConfig(), None, tokenizer(), Launch(), lambda _: None, kind="reward")
    assert str(caught.value) == (
        f"AutoModelForSequenceClassification with num_labels=1 is what trains here, and the model is a {type(model).__name__} with "
        f"{model.config.num_labels}; load it so, or give its name."
    )
