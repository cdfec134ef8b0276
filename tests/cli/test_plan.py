"""`burnish plan sft`: what it prints, what it proposes, and what it refuses, on a model that is a config.json alone."""

import json
import subprocess
import sys

import pytest
from tests.tiny import tiny_llama

from burnish.cli import plan
from burnish.cli.main import main
from burnish.cli.plan import PRICES, Plan, PlanError, Planner
from burnish.config.model import ModelConfig
from burnish.config.plan import PlanConfig
from burnish.config.sft import SFTConfig
from burnish.config.values import ConfigError

SHAPE = {"num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 512, "vocab_size": 2000}
"""Six layers, so that a checkpointed one is little beside all of them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """No weights and no tokenizer."""
    made = tmp_path_factory.mktemp("model")
    tiny_llama(**SHAPE).config.save_pretrained(made)
    return made


def run(folder, capsys, *more):
    """Exit status and the JSON that is printed. A process takes nothing, so that a tiny model counts."""
    status = main(["plan", "sft", "--model_name_or_path", str(folder), "--max_length", "512", "--json", *more])
    return status, json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def no_process(monkeypatch):
    monkeypatch.setattr("burnish.models.memory.PROCESS", {})


@pytest.fixture
def whole(no_process, folder):
    """Bytes of a row of 512 tokens, alone on a CPU."""
    planner = planner_of(folder, "80GB")
    return planner.estimate(planner.plan).total(512)


def planner_of(folder, memory, devices=1, device_type="cpu", **options):
    args = SFTConfig(max_length=512, compute_dtype="float32", **options)
    made = Planner(PlanConfig(memory=memory, devices=devices, device_type=device_type), args)
    made.plan = Plan(model=ModelConfig(model_name_or_path=str(folder)), args=args, devices=devices)
    return made


def test_what_fits(folder, capsys):
    status, found = run(folder, capsys, "--memory", "80GB")
    assert (status, found["fits"]) == (0, True)
    assert (found["tokens"], found["devices"], found["device_bytes"], found["compute_dtype"]) == (16384, 1, 80 * 10**9, "bfloat16")
    assert found["parameters"] == found["trained"] == tiny_llama(**SHAPE).num_parameters()
    assert list(found["bytes"]) == ["weights", "gradients", "optimizer", "activations", "head"]
    assert found["bytes"]["gradients"] == 4 * found["parameters"]
    assert sum(found["bytes"].values()) == found["total"]
    assert "change" not in found


def test_a_table_for_people(folder, capsys):
    assert main(["plan", "sft", "--model_name_or_path", str(folder), "--memory", "80GB", "--devices", "2"]) == 0
    shown = capsys.readouterr().out
    assert "communication" in shown
    assert "2 x 80GB, of which 10% stay free; rows of 1,024 tokens at most." in shown
    assert shown.endswith("It fits, with 16,384 tokens in a micro-batch.\n")


def test_any_flag_of_sft(folder, capsys):
    more = ("--use_peft", "--lora_r", "4", "--optim", "sgd", "--dataset_name", "rows.jsonl", "--learning_rate", "1e-4")
    _, found = run(folder, capsys, "--memory", "80GB", *more)
    assert found["trained"] < found["parameters"] / 4
    assert "optimizer" not in found["bytes"]


def test_a_micro_batch_that_is_too_large_is_made_smaller(folder, whole, capsys):
    memory = f"{whole / 0.9 * 1.1:.0f}B"
    status, found = run(folder, capsys, "--memory", memory, "--device_type", "cpu", "--compute_dtype", "float32",
                        "--max_tokens_per_microbatch", "4096")  # fmt: skip
    assert (status, found["fits"], found["tokens"]) == (1, False, 4096)
    assert (found["change"]["flags"], found["change"]["tokens"], found["change"]["time"]) == ("--max_tokens_per_microbatch 512", 512, 1.0)
    assert found["change"]["total"] <= 0.9 * found["device_bytes"] < found["total"]


def test_the_cheapest_change_that_fits(folder, whole, capsys):
    """A tenth too little: checkpointing on one device; on two, sharding as soon as it is enough, since it costs less."""
    memory = ("--memory", f"{whole / 0.9 * 0.9:.0f}B", "--device_type", "cpu", "--compute_dtype", "float32")
    status, found = run(folder, capsys, *memory)
    assert (status, found["change"]["flags"], found["change"]["time"]) == (1, "--gradient_checkpointing", 1.33)
    assert found["change"]["why"] == "gradient_checkpointing computes every layer's forward twice"
    assert found["change"]["total"] <= 0.9 * found["device_bytes"] < found["total"]
    planner = planner_of(folder, "1GB", devices=2)
    sharded = next(one for one in planner._changes(planner.plan, adapter=False) if one.changes == ("shard_grad_op",))
    memory = ("--memory", f"{planner.estimate(sharded).total(512) / 0.9 * 1.01:.0f}B", *memory[2:])
    _, found = run(folder, capsys, *memory, "--devices", "2")
    assert (found["change"]["flags"], found["change"]["time"]) == ("--fsdp shard_grad_op", 1.05)


def test_no_cheaper_change_would_fit(folder, whole):
    planner = planner_of(folder, f"{whole / 0.9 * 0.7:.0f}B", devices=2)
    best, _ = planner.cheapest(planner.plan)
    cheaper = [one for one in planner._changes(planner.plan, adapter=False) if one.price < best.price]
    assert cheaper
    assert all(planner.estimate(one).total(512) > planner.room for one in cheaper)


def test_combinations_are_those_that_have_an_effect(folder):
    names = [set(one.changes) for one in planner_of(folder, "1GB")._changes(planner_of(folder, "1GB").plan, adapter=False)]
    assert names == [{"gradient_checkpointing"}]
    planner = planner_of(folder, "1GB", devices=2, device_type="cuda")
    found = [set(one.changes) for one in planner._changes(planner.plan, adapter=False)]
    kinds, rest = ({"shard_grad_op"}, {"full_shard"}), (set(), {"fsdp_cpu_offload"})
    wanted = [kind | more | last for kind in kinds for more in (set(), {"gradient_checkpointing"}) for last in rest]
    assert sorted(map(sorted, found)) == sorted(map(sorted, [{"gradient_checkpointing"}, *wanted]))
    adapted = [one.changes[0] for one in planner._changes(planner.plan, adapter=True)]
    assert set(adapted) == {"use_peft"}
    assert len(adapted) == len(found) + 1
    adafactor = planner_of(folder, "1GB", devices=2, device_type="cuda", optim="adafactor")  # which FSDP refuses
    assert [one.flags(2) for one in adafactor._changes(adafactor.plan, adapter=False)] == ["--gradient_checkpointing"]
    on = planner_of(folder, "1GB", devices=2, device_type="cuda", fsdp="full_shard", gradient_checkpointing=True)
    assert [one.flags(2) for one in on._changes(on.plan, adapter=False)] == ["--fsdp_cpu_offload"]


def test_an_adapter_goes_before_more_devices_and_after_all_else(folder, monkeypatch):
    """Sizes made up: only an adapter, or only eight devices that shard, would fit."""
    planner = planner_of(folder, "1GB")
    monkeypatch.setattr(planner, "estimate", lambda one: one)
    monkeypatch.setattr(planner, "_most", lambda one: 512 * ("use_peft" in one.changes))
    assert planner.cheapest(planner.plan)[0].flags(1) == "--use_peft"
    monkeypatch.setattr(planner, "_most", lambda one: 512 * (one.devices >= 8 and "full_shard" in one.changes))
    best = planner.cheapest(planner.plan)[0]
    assert (best.flags(1), best.price) == ("--fsdp full_shard --devices 8", PRICES["full_shard"][0])
    assert best.why(1).endswith("8 times as many devices, each with its share")


def test_a_row_that_no_number_of_devices_holds(folder):
    planner = planner_of(folder, "10KB")
    with pytest.raises(PlanError) as refused:
        planner.cheapest(planner.plan)
    assert str(refused.value) == (
        "A row of 512 tokens does not fit on 4,096 devices of 10KB, sharded and checkpointed; "
        "take devices with more memory, a smaller model or a smaller max_length."
    )


@pytest.mark.parametrize(
    ("said", "size"), [("80GB", 80 * 10**9), ("24GiB", 24 * 2**30), ("1.5 tb", 1.5 * 10**12), ("512MiB", 2**29), ("100B", 100)]
)
def test_sizes(said, size):
    assert PlanConfig(memory=said).bytes == size


@pytest.mark.parametrize("said", ["80", "80XB", "GB", "-3GB", "eighty"])
def test_what_is_no_size(said):
    with pytest.raises(ConfigError) as refused:
        PlanConfig(memory=said)
    assert str(refused.value) == f"memory must be a size with its unit, such as 80GB or 24GiB, not {said!r}."


REFUSED = [
    (["--memory", "0GB"], "memory='0GB' is no memory at all; give that of one device, such as 80GB."),
    ([], "burnish plan sft needs --memory."),
    (["--memory", "80GB", "--devices", "0"], "devices must be an integer of at least 1, not 0."),
    (["--memory", "80GB", "--model_name_or_path", "./nowhere"],
     "model_name_or_path='./nowhere' must be a folder that holds config.json or adapter_config.json, and there is no such folder."),
]  # fmt: skip


@pytest.mark.parametrize(("more", "sentence"), REFUSED)
def test_refusals(more, sentence, capsys):
    assert main(["plan", "sft", *more]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_an_unknown_kind_of_model(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "llama9"}')
    assert main(["plan", "sft", "--memory", "80GB", "--model_name_or_path", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: The model '{tmp_path}' could not be loaded (")
    assert "llama9" in said
    assert said.count("\n") == 1


def test_help_needs_no_torch():
    code = "import sys\nfrom burnish.cli.main import main\nmain(['plan', 'sft', '--help'])\nprint({'torch', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--devices_per_node" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_module_states_a_price_for_every_change():
    assert set(PRICES) == {"shard_grad_op", "full_shard", "gradient_checkpointing", "fsdp_cpu_offload", "use_peft"}
    assert plan.ROOM == 0.9
