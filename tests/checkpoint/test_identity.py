import json
import subprocess

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from burnish.checkpoint import identity
from burnish.checkpoint.identity import environment, model_identity


def lora(model, seed=0, **options):
    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(target_modules=["q_proj"], **options))


def test_the_same_model_has_the_same_line_in_every_process(make_model, tmp_path):
    model = make_model()
    line = model_identity(model)
    kind, config, config_hash, weights, weights_hash = line.split()
    assert (kind, config, weights) == ("LlamaForCausalLM", "config", "weights")
    assert len(config_hash) == len(weights_hash) == 12
    assert model_identity(make_model()) == line
    model.save_pretrained(tmp_path / "elsewhere")
    assert model_identity(model) == line
    assert model_identity(AutoModelForCausalLM.from_pretrained(tmp_path / "elsewhere")) == line


def test_settings_of_training_do_not_change_it(make_model):
    model = make_model()
    line = model_identity(model)
    model.config.use_cache = False
    model.gradient_checkpointing_enable()
    model.eval()
    assert model_identity(model.requires_grad_(False)) == line


@pytest.mark.parametrize("part", ["config", "weights"])
def test_another_model_has_another_line(make_model, part):
    model = make_model()
    before = dict(zip(("type", "", "config", "", "weights"), model_identity(model).split(), strict=True))
    if part == "config":
        model.config.rms_norm_eps = 1e-3
    else:
        # The smallest change of one element, the first of a norm.
        with torch.no_grad():
            model.model.norm.weight[0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    after = dict(zip(("type", "", "config", "", "weights"), model_identity(model).split(), strict=True))
    assert {key for key in before if before[key] != after[key]} == {part}


def test_dtype_and_one_optimizer_step_are_seen(make_model):
    line = model_identity(make_model())
    assert model_identity(make_model().to(torch.bfloat16)) != line
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.arange(8)[None]
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    assert model_identity(model) != line


def test_adapters_count_with_their_configuration_and_weights(make_model):
    line = model_identity(lora(make_model()))
    assert line.startswith("LlamaForCausalLM config ")
    assert line != model_identity(make_model())
    assert model_identity(lora(make_model())) == line
    lines = {
        model_identity(model)
        for model in (lora(make_model(), seed=1), lora(make_model(), lora_alpha=9), lora(make_model(), r=4), lora(make_model(seed=1)))
    }
    assert line not in lines
    assert len(lines) == 4
    other_base = lora(make_model())
    other_base.config.rms_norm_eps = 1e-3
    assert model_identity(other_base).split()[2] != line.split()[2]


def test_a_module_without_a_configuration_has_an_identity(make_model):
    assert model_identity(torch.nn.Linear(2, 2)).startswith("Linear config ")


def test_the_environment_is_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = json.loads(json.dumps(environment()))
    assert list(known) == ["python", "platform", "packages", "git", "cpu", "memory_bytes", "gpus"]
    assert known["packages"]["torch"] == torch.__version__
    assert known["git"] is None
    assert known["cpu"]["threads"] == torch.get_num_threads()
    assert identity._version("no-such-package") is None


def test_the_commit_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def git(*words):
        done = subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-q", "-m", "one")
    (tmp_path / "untracked.txt").write_text("1")
    assert environment()["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a.txt").write_text("2")
    assert environment()["git"]["dirty"] is True
