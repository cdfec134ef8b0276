"""Law *export*: save, load with plain transformers and PEFT in a process that knows nothing of Burnish, same logits to the bit."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish.models.export import check_export, merge_adapter, sample_logits, save_model
from burnish.models.load import ModelError
from tests.laws.methods import CASES, build_trainer, cases, tokenizer
from tests.models.families import VOCABULARY, tiny_model

DEADLINE = 300  # seconds
ADAPTERS = {
    "full": None,
    "lora": {"target_modules": ["q_proj", "v_proj"]},
    "lora on the head": {"target_modules": ["q_proj", "lm_head"]},
    "rank-stabilised, and the head whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "use_rslora": True},
}
TIED = {
    "lora on a tied head": {"target_modules": ["q_proj", "lm_head"]},
    "lora on tied embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
}
"""Merged, the head and the embeddings differ: the merged model is untied."""
FAMILIES = ["llama-tied", "gemma2", "gpt-oss"]
"""Beside each method's own family; trained whole, with nll."""
IDS = torch.randint(0, VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(0))

READER = """
import json, pathlib, sys
import torch
import peft, transformers
from transformers import AutoTokenizer
torch.set_num_threads(1)
TASKS = {"CAUSAL_LM": "CausalLM", "SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification"}
folder = pathlib.Path(sys.argv[1])
ids, logits = torch.load(folder / "ids.pt"), {}
for path in map(pathlib.Path, json.loads((folder / "folders.json").read_text())):
    if (path / "adapter_config.json").is_file():
        task = json.loads((path / "adapter_config.json").read_text())["task_type"]
        auto = getattr(peft, "AutoPeftModelFor" + TASKS[task])
    else:
        (architecture,) = json.loads((path / "config.json").read_text())["architectures"]
        auto = getattr(transformers, "AutoModelFor" + architecture.partition("For")[2])
    model = auto.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        logits[str(path)] = (model(ids, use_cache=False).logits, tokenizer("w5 w6").input_ids, tokenizer.eos_token)
assert not any(name.startswith("burnish") for name in sys.modules)
torch.save(logits, folder / "logits.pt")
"""


def logits_of(model):
    model.eval()
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.set_attn_implementation("eager")
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def adapter(options, kind):
    from peft import LoraConfig

    task = {"causal": "CAUSAL_LM", "reward": "SEQ_CLS", "process_reward": "TOKEN_CLS"}[kind]
    return None if options is None else LoraConfig(r=2, task_type=task, init_lora_weights=False, **options)


def has(case, what):
    """A model that gives scores has no language model's head."""
    return case.kind == "causal" or "head" not in what


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(name, what) → logits in memory and as read back from the folder; the folder. Three steps of training go before."""
    folder = tmp_path_factory.mktemp("export")
    wanted, folders = {}, {}
    plan = [(case.name, case, case.family, what) for case in CASES if "export" not in case.exempt for what in ADAPTERS if has(case, what)]
    plan += [(family, CASES[0], family, "full") for family in FAMILIES]
    plan += [("tied", CASES[0], "llama-tied", what) for what in TIED]
    for name, case, family, what in plan:
        start, output = folder / f"start {family} {case.kind}", folder / f"{name} {what}"
        if not start.exists():
            replace(case, family=family).model(dtype=torch.float32).save_pretrained(start)
            tokenizer().save_pretrained(start)
        peft_config = adapter({**ADAPTERS, **TIED}[what], case.kind)
        trainer = build_trainer(case, str(start), output / "run", max_steps=3, learning_rate=1e-2, peft_config=peft_config)
        trainer.train()
        trainer.save_model(output / "model")
        kinds = {"saved": output / "model", "checkpoint": output / "run" / "checkpoint-3"}
        if "lora" in what:
            kinds["merged"] = merge_adapter(output / "model", output / "merged")
        for kind, path in kinds.items():
            wanted[name, what, kind] = logits_of(trainer.model)
            folders[name, what, kind] = path
        wanted[name, what, "start"] = logits_of(replace(case, family=family).model(dtype=torch.float32))
    torch.save(IDS, folder / "ids.pt")
    (folder / "folders.json").write_text(json.dumps([str(path) for path in folders.values()]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", READER, str(folder)]
        done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=DEADLINE, check=False)
    if done.returncode:
        pytest.fail((folder / "log").read_text()[-4000:])
    read = torch.load(folder / "logits.pt")
    return wanted, {key: read[str(path)] for key, path in folders.items()}, folders


def to_the_bit(exported, name, what):
    wanted, found, _ = exported
    for kind in ("saved", "checkpoint"):
        logits, ids, eos = found[name, what, kind]
        assert (logits - wanted[name, what, kind]).abs().max() == 0, kind
        assert (ids, eos) == ([8, 9], "</s>"), kind
    assert (wanted[name, what, "saved"] - wanted[name, what, "start"]).abs().max() > 1e-3, "training changed something"


@cases("export")
@pytest.mark.parametrize("what", ADAPTERS)
def test_methods(exported, case, what):
    if not has(case, what):
        pytest.skip("a model that gives scores has no language model's head")
    to_the_bit(exported, case.name, what)


@pytest.mark.parametrize("family", FAMILIES)
def test_families(exported, family):
    to_the_bit(exported, family, "full")


def merged_alike(exported, name, what):
    """W + (alpha / r) B A in float32 instead of two products: equal up to rounding."""
    wanted, found, folders = exported
    logits, ids, eos = found[name, what, "merged"]
    assert (logits - wanted[name, what, "merged"]).abs().max() <= 1e-5 * logits.abs().max()
    assert (ids, eos) == ([8, 9], "</s>")
    assert not (folders[name, what, "merged"] / "adapter_config.json").exists()


@cases("export")
@pytest.mark.parametrize("what", [name for name in ADAPTERS if "lora" in name])
def test_merged(exported, case, what):
    if not has(case, what):
        pytest.skip("a model that gives scores has no language model's head")
    merged_alike(exported, case.name, what)


@pytest.mark.parametrize("what", TIED)
def test_tied(exported, what):
    to_the_bit(exported, "tied", what)
    merged_alike(exported, "tied", what)


def test_nothing_of_tree_attention_is_written(exported):
    for path in exported[2].values():
        assert not any('"tree"' in file.read_text() for file in path.glob("*config.json"))


@pytest.mark.parametrize(("before", "after"), [(2, 2), (7, [2, 7]), ([7, 2], [7, 2]), ([7, 8], [2, 7, 8]), (None, [2])])
def test_generation_stops_where_training_taught_it_to(tmp_path, before, after):
    """At the tokenizer's end-of-sequence token (2), and wherever the model stopped before."""
    model = tiny_model("llama", dtype=torch.float32)
    model.generation_config.eos_token_id = before
    save_model(model, tmp_path, tokenizer())
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == after


def test_a_folder_that_holds_another_model_is_caught(exported, tmp_path):
    path = exported[2]["sft-nll", "full", "saved"]
    model = tiny_model("llama", dtype=torch.float32)
    with pytest.raises(ModelError, match="gives other logits than the trained one"):
        check_export(sample_logits(model), path, torch.float32)
    shutil.copytree(path, tmp_path / "same")
    from transformers import AutoModelForCausalLM

    same = AutoModelForCausalLM.from_pretrained(tmp_path / "same")
    assert check_export(sample_logits(same), tmp_path / "same", torch.float32) == 0.0


def test_merging_what_is_no_adapter_is_refused(exported, tmp_path):
    path = exported[2]["sft-nll", "full", "saved"]
    with pytest.raises(ModelError) as caught:
        merge_adapter(path, tmp_path)
    assert str(caught.value) == f"{path} holds no adapter (no adapter_config.json); give the output_dir of a run with use_peft."
    assert not any(Path(tmp_path).iterdir())
