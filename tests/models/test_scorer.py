"""Reward models: a score for each token that is read, as transformers' own classifiers give it; loaded, adapted, saved, estimated."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from burnish.config.model import ModelConfig
from burnish.config.sft import SFTConfig
from burnish.data.tree import build_tree
from burnish.distributed.launch import Launch
from burnish.models.attention import NAME, register
from burnish.models.export import check_export, merge_adapter, sample_logits, save_model
from burnish.models.load import ModelError, load_model, load_skeleton
from burnish.models.lora import add_adapter, lora_config, untrained_parameters
from burnish.models.memory import Placement, estimate_memory, skeleton_policy
from burnish.models.padding import set_padding
from burnish.models.policy import Paths
from burnish.models.probe import probe, probe_tree
from burnish.models.scorer import Scorer
from burnish.models.start import start_policy
from burnish.models.trace import TraceError
from burnish.types import Branch, Example, Segment
from tests.laws.methods import tokenizer
from tests.laws.trees import path_to
from tests.models.families import FAMILIES, VOCABULARY, tiny_model, tiny_scorer

CPU = torch.device("cpu")
AUTO = {"reward": AutoModelForSequenceClassification, "process_reward": AutoModelForTokenClassification}
LABELS = {"reward": 1, "process_reward": 2}
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


def alone(model, tree):
    """For each trained token, what transformers gives for the row that ends there: `[N, K]`."""
    scores = []
    for index in tree.index_N.tolist():
        number = next(i for i, node in enumerate(tree.nodes) if node.start <= index < node.end)
        path = path_to(tree, number)
        ids = tree.token_ids_T[path[: path.tolist().index(index) + 1]]
        logits = model(ids[None], use_cache=False).logits
        scores.append(logits[0, -1] if logits.ndim == 3 else logits[0])
    return torch.stack(scores)


def scorer_of(family, kind="reward", paths=None, **options):
    register()
    scorer = Scorer(tiny_scorer(family, kind, **options), paths=paths)
    if scorer.paths.attention == "tree":
        scorer.causal_model.set_attn_implementation(NAME)
    return scorer


# The score of a token


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


def pair():
    def branch(*ids):
        return Branch(
            segments=(Segment(token_ids=ids[:-1], source="model", trained=False), Segment(token_ids=ids[-1:], source="model", trained=True))
        )

    prompt = (Segment(token_ids=[5, 6, 7], source="prompt", trained=False),)
    return Example(group_id="a", prompt=prompt, branches=(branch(8, 9, 2), branch(10, 2)))


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


# Loading


@pytest.fixture
def folder(tmp_path):
    tiny_model("llama", dtype=torch.float32).save_pretrained(tmp_path / "causal")
    tokenizer().save_pretrained(tmp_path / "causal")
    return tmp_path / "causal"


def config(path, **options):
    return ModelConfig(model_name_or_path=str(path), **options)


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


# What is padding


def with_pad(**options):
    one = tokenizer()
    for name, token in options.items():
        setattr(one, name, token)
    return one


@pytest.mark.parametrize("kind", AUTO)
def test_padding_that_ends_no_row_stays(kind):
    model, one = tiny_scorer("llama", kind), tokenizer()
    assert set_padding(model, one) == ()
    assert (model.config.pad_token_id, one.pad_token) == (0, "<pad>")


BEFORE_THE_END = "</s> ends rows, and transformers passes over padding to find a row's last token"


def test_padding_that_ends_rows_is_replaced():
    """By the unknown token, a special one that ends no row, or one that is new; the embedding has 97 rows, the tokenizer 93 tokens."""
    for made, wanted, token in (
        (with_pad(pad_token="</s>", unk_token="w4"), 7, "w4"),
        (with_pad(pad_token="</s>"), 0, "<pad>"),
        (with_pad(pad_token="</s>", chat_template="{{ m }}<pad>"), 1, "<s>"),
        (with_pad(pad_token="</s>", chat_template="{{ bos }}<s>{{ m }}<pad>"), 93, "<|padding|>"),
    ):
        model = tiny_scorer("llama", pad_token_id=2)
        said = set_padding(model, made)
        assert said == (f"Padding is {token} from here on, for the model and for its tokenizer: {BEFORE_THE_END}.",)
        assert (model.config.pad_token_id, made.pad_token_id, made.pad_token, made.eos_token_id) == (wanted, wanted, token, 2)


def test_where_there_was_none():
    assert set_padding(tiny_scorer("llama"), with_pad(pad_token=None)) == (
        "Padding is <pad> from here on, for the model and for its tokenizer: there was none.",
    )


def test_the_models_own_ends_count_too():
    model, one = tiny_scorer("llama", eos_token_id=[2, 0]), tokenizer()
    (message,) = set_padding(model, one)
    assert message.endswith(": <pad> ends rows, and transformers passes over padding to find a row's last token.")
    assert model.config.pad_token_id not in (0, 2)


def test_where_nothing_can_be_padding_rows_are_taken_one_at_a_time():
    model, one = tiny_scorer("llama", vocab_size=93), with_pad(pad_token="</s>", bos_token="</s>", unk_token="</s>", eos_token="</s>")
    one.chat_template = "<pad><s>"
    assert set_padding(model, one) == (
        f"No token can be padding ({BEFORE_THE_END}): transformers will take one row at a time of this model.",
    )
    assert model.config.pad_token_id is None
    with pytest.raises(ValueError, match="Cannot handle batch sizes > 1"):
        model(torch.ones(2, 3, dtype=torch.long))


@torch.no_grad()
@pytest.mark.parametrize("pad", ["</s>", "<pad>", None])
def test_transformers_reads_our_scores_of_rows_alone_and_padded(tmp_path, pad):
    """Rows that end with the end-of-turn token, whatever padding was before: the score is that of the tree."""
    one = with_pad(pad_token=pad)
    scorer = scorer_of("llama", dtype=torch.float32, pad_token_id=2)
    set_padding(scorer.model, one)
    wanted = scorer(build_tree([pair()])).score_NK
    save_model(scorer.model, tmp_path, one)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    from transformers import AutoTokenizer

    padder = AutoTokenizer.from_pretrained(tmp_path)
    rows = [[5, 6, 7, 8, 9, 2], [5, 6, 7, 10, 2]]
    for side in ("left", "right"):
        padder.padding_side = side
        batch = padder.pad({"input_ids": rows}, return_tensors="pt")
        positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        found = plain(**batch, position_ids=positions).logits
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    for row, score in zip(rows, wanted, strict=True):
        torch.testing.assert_close(plain(torch.tensor([row])).logits[0], score, atol=1e-5, rtol=1e-5)


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
