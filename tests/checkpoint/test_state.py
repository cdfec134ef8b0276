import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tests.checkpoints import write, write_model
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.optimization import Adafactor as TransformersAdafactor

from burnish.checkpoint import state as state_module
from burnish.checkpoint.files import CheckpointError, find_checkpoint, save_checkpoint
from burnish.checkpoint.state import TrainerControl, TrainerState, TrainState, random_state, set_random_state
from burnish.checkpoint.weights import OTHER, gather_weights, load_model, save_model
from burnish.distributed.launch import Launch


def muon(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return torch.optim.Muon(matrices, lr=0.02)


OPTIMIZERS = {
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False),
    "adamw_fused": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True),
    "adafactor": lambda model: torch.optim.Adafactor(model.parameters(), lr=1e-2),
    "adafactor_transformers": lambda model: TransformersAdafactor(model.parameters(), lr=1e-2, relative_step=False, beta1=0.9),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9),
    "muon": muon,
}


def new_run(model, optimizer):
    optimizer = OPTIMIZERS[optimizer](model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return TrainState(model=model.train(), optimizer=optimizer, scheduler=schedule)


def train(run, steps):
    """Draws from every generator: the batch from NumPy and Python, dropout from torch."""
    for _ in range(steps):
        ids = torch.from_numpy(np.random.randint(0, 64, (2, 8)))
        ids[0, random.randrange(8)] = random.randrange(64)
        run.model(input_ids=ids, labels=ids).loss.backward()
        run.optimizer.step()
        run.scheduler.step()
        run.optimizer.zero_grad()
        run.trainer.global_step += 1


def bits(value):
    """Tensors as bytes, with dtype and shape; the rest as it is."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return value


def everything(run):
    buffers = dict(run.model.named_buffers())
    return bits([run.model.state_dict(), buffers, run.optimizer.state_dict(), run.scheduler.state_dict(), random_state()])


def seed_all():
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)


def assert_continues_to_the_bit(make_run, tmp_path, steps=2):
    """`steps`, written, `steps` more; against another process's run (another model), loaded, the same `steps`."""
    seed_all()
    run = make_run(0)
    train(run, steps)
    write(run, tmp_path)
    at_checkpoint = everything(run)
    train(run, steps)
    never_stopped = everything(run)

    resumed = make_run(1)
    train(resumed, 1)
    assert everything(resumed) != at_checkpoint
    assert resumed.load(tmp_path, Launch()) == ()
    assert everything(resumed) == at_checkpoint
    train(resumed, steps)
    assert everything(resumed) == never_stopped
    return resumed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_is_the_run_that_never_stopped(make_model, tmp_path, optimizer, dtype):
    resumed = assert_continues_to_the_bit(lambda seed: new_run(make_model(seed).to(dtype), optimizer), tmp_path)
    assert resumed.model.lm_head.weight is resumed.model.model.embed_tokens.weight
    assert resumed.trainer.global_step == 4


def test_optimizer_state_keeps_its_dtype_beside_parameters_of_another(make_model, tmp_path):
    def make_run(seed):
        return new_run(make_model(seed).to(torch.bfloat16), "adafactor_transformers")

    resumed = assert_continues_to_the_bit(make_run, tmp_path)
    dtypes = {value.dtype for values in resumed.optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)}
    assert dtypes == {torch.float32}


def test_a_checkpoint_loads_with_plain_transformers(make_model, tmp_path):
    run = new_run(make_model(), "sgd")
    train(run, 1)
    write(run, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(10)[None]
    assert torch.equal(plain.eval()(ids).logits, run.model.eval()(ids).logits)


def test_untied_models_too(make_model, tmp_path):
    assert_continues_to_the_bit(lambda seed: new_run(make_model(seed, tie_word_embeddings=False), "adamw"), tmp_path)


def test_config_json_names_the_dtype_of_the_weights_beside_it(make_model, tmp_path):
    """In the background the live model may be in the dtype that its shards are computed in."""
    model = make_model(0)
    weights = gather_weights(model, Launch(), copy=True)
    save_model(model.to(torch.bfloat16), weights, tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.float32


def test_experts_that_transformers_splits_on_the_way_out(tmp_path):
    def make_run(seed):
        torch.manual_seed(seed)
        sizes = dict(vocab_size=64, hidden_size=16, intermediate_size=32, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2)
        heads = dict(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8)
        return new_run(Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, pad_token_id=None)), "adamw")

    resumed = assert_continues_to_the_bit(make_run, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    resumed.load(tmp_path, Launch())
    assert bits(plain.state_dict()) == bits(resumed.model.state_dict())


def test_buffers_and_mixed_dtypes(make_model, tmp_path):
    def make(seed):
        model = make_model(seed)
        model.model.layers[0].to(torch.float64)
        model.model.layers[1].mlp.to(torch.bfloat16)
        model.register_buffer("running_mean", torch.full((3,), float("nan")) + seed)
        model.register_buffer("seen", torch.tensor(seed), persistent=False)
        model.register_buffer("signs", torch.tensor([-0.0 if seed else 0.0]))
        model.register_buffer("nothing", torch.empty(0))
        return model

    written, read = make(1), make(0)
    read.running_mean.zero_()
    write_model(written, tmp_path)
    load_model(read, tmp_path)
    assert bits(read.state_dict()) == bits(written.state_dict())
    assert bits(dict(read.named_buffers())) == bits(dict(written.named_buffers()))


def test_what_save_pretrained_leaves_out_or_changes_is_kept_beside_it(make_model, tmp_path):
    """A model whose `save_pretrained` rounds one tensor and drops another: the names in the file are right, the bits are not."""

    class Forgetful(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Parameter(torch.full((2,), value + 1 / 3)) for _ in range(3))

        def save_pretrained(self, folder, state_dict):
            from safetensors.torch import save_file

            save_file({"a": state_dict["a"], "b": state_dict["b"].round()}, folder / "model.safetensors")

    from safetensors import safe_open

    written, read = Forgetful(1.0), Forgetful(2.0)
    write_model(written, tmp_path)
    with safe_open(tmp_path / OTHER, "pt") as other:
        assert sorted(other.keys()) == ["b", "c"]
    load_model(read, tmp_path)
    assert bits(read.state_dict()) == bits(written.state_dict())


def lora(model, **options):
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], lora_dropout=0.1, **options))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}], ids=str)
def test_of_an_adapter_model_only_the_adapter_is_saved(make_model, tmp_path, options):
    def make_run(seed):
        torch.manual_seed(seed)
        return new_run(lora(make_model(0, tie_word_embeddings=False), **options), "adamw")

    seed_all()
    resumed = assert_continues_to_the_bit(make_run, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    resumed.load(tmp_path, Launch())
    plain = PeftModel.from_pretrained(make_model(0, tie_word_embeddings=False), tmp_path)
    ids = torch.arange(10)[None]
    assert torch.equal(plain.eval()(ids).logits, resumed.model.eval()(ids).logits)


def test_embeddings_that_were_resized_are_saved_beside_the_adapter(make_model, tmp_path):
    make_model(0).save_pretrained(tmp_path / "base")
    resized = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    resized.resize_token_embeddings(70)
    model = lora(resized)
    write_model(model, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(saved["base_model.model.model.embed_tokens.weight"], model.get_input_embeddings().weight)


def test_two_adapters_and_a_parameter_unfrozen_beside_them(make_model, tmp_path):
    def make(seed):
        torch.manual_seed(seed)
        model = lora(make_model(0))
        model.add_adapter("reference", LoraConfig(target_modules=["q_proj"], r=2))
        torch.nn.init.normal_(model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["reference"].weight)
        norm = model.base_model.model.model.norm.weight.requires_grad_()
        torch.nn.init.normal_(norm)
        return model

    written, read = make(0), make(1)
    write_model(written, tmp_path)
    assert (tmp_path / "reference" / "adapter_model.safetensors").exists()
    load_model(read, tmp_path)
    assert bits(read.state_dict()) == bits(written.state_dict())


def test_another_model_is_refused_by_its_tensor(make_model, tmp_path):
    write_model(make_model(), tmp_path)
    with pytest.raises(CheckpointError) as error:
        load_model(make_model(num_hidden_layers=3), tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds no model.layers.2.self_attn.q_proj.weight; "
        "the checkpoint is of another model, so give this run another output_dir."
    )
    with pytest.raises(CheckpointError) as error:
        load_model(make_model().to(torch.bfloat16), tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds model.embed_tokens.weight as float32[64, 16] where this run has bfloat16[64, 16]; "
        "load the model in the dtype and shape it was trained in, or give this run another output_dir."
    )


def test_another_optimizer_is_refused(make_model, tmp_path):
    write(new_run(make_model(), "adamw"), tmp_path)
    with pytest.raises(CheckpointError, match=f"^The optimizer in {tmp_path} does not fit this run's Muon "):
        new_run(make_model(), "muon").load(tmp_path, Launch())


def test_counters_meter_and_history_come_back_exactly(make_model, tmp_path):
    run = new_run(make_model(), "sgd")
    run.cursor, run.metrics_offset = (3, 17), 12_345
    run.meter = {"loss": (0.1 + 0.2, 3.0), "perplexity": (float("inf"), 1e-300)}
    run.control = TrainerControl(should_training_stop=True, should_save=True)
    run.trainer = TrainerState(
        epoch=1 / 3, global_step=7, max_steps=100, save_steps=10, num_input_tokens_seen=10**12, is_world_process_zero=True,
        log_history=[{"loss": 0.1, "step": 5}], best_metric=1 / 7, best_global_step=5, best_model_checkpoint="out/checkpoint-5",
    )  # fmt: skip
    write(run, tmp_path)

    resumed = new_run(make_model(), "sgd")
    resumed.trainer = kept = TrainerState(max_steps=200, save_steps=20, is_world_process_zero=False)
    resumed.load(tmp_path, Launch())
    assert (resumed.cursor, resumed.metrics_offset, resumed.meter) == (run.cursor, run.metrics_offset, run.meter)
    assert resumed.control == TrainerControl(should_training_stop=True)
    assert resumed.trainer is kept
    assert kept == TrainerState(**{**vars(run.trainer), "max_steps": 200, "save_steps": 20, "is_world_process_zero": False})


def test_each_rank_has_its_own_random_state_and_a_meter_of_one_is_counted_once(make_model, tmp_path):
    run, states = new_run(make_model(), "sgd"), []
    run.meter = {"loss": (3.0, 2.0)}
    write(run, tmp_path)
    for rank in range(2):
        torch.manual_seed(rank)
        states.append(random_state())
        torch.save(states[rank], tmp_path / f"random-{rank}.pt")
    for rank, meter in ((1, {}), (0, {"loss": (3.0, 2.0)})):
        assert run.load(tmp_path, Launch(rank=rank, world_size=2)) == ()
        assert bits(random_state()) == bits(states[rank])
        assert run.meter == meter


def test_another_number_of_ranks_draws_anew(make_model, tmp_path):
    """Not what it drew at the start of the run, and not what another rank draws."""
    run = new_run(make_model(), "sgd")
    run.trainer.global_step = 5
    write(run, tmp_path)
    drawn = []
    for rank in range(4):
        torch.manual_seed(42 + rank)
        drawn.append(torch.rand(1).item())
        torch.manual_seed(42 + rank)
        assert run.load(tmp_path, Launch(rank=rank, world_size=4)) == (
            "Written by 1 process and continued by 4: the same examples; dropout draws other numbers.",
        )
        drawn.append(torch.rand(1).item())
    assert len(set(drawn)) == 8


def test_random_draws_continue():
    state = random_state()
    draws = [random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.randn(3).tolist()]
    set_random_state(state)
    assert [random.gauss(0, 1), np.random.standard_normal(3).tolist(), torch.randn(3).tolist()] == draws
    with pytest.raises(CheckpointError, match="^The checkpoint was written by a process that saw 3 GPUs and this one sees "):
        set_random_state({**state, "cuda": [state["torch"]] * 3})


def test_state_that_could_not_be_read_back_is_refused_when_it_is_written(make_model, tmp_path):
    run = new_run(make_model(), "sgd")
    run.optimizer.param_groups[0]["owner"] = SimpleNamespace()
    with pytest.raises(CheckpointError) as error:
        write(run, tmp_path)
    assert str(error.value) == (
        "The state of SGD could be written but not read back with torch.load(weights_only=True); "
        "let its state_dict hold nothing but tensors, numbers, strings, lists and dicts."
    )


@pytest.mark.parametrize("name", [
    "model.safetensors", "config.json", OTHER, "optimizer.pt", "optimizer/.metadata", "optimizer/__0_0.distcp", "scheduler.pt",
    "random-0.pt", "trainer_state.json", "loop_state.json", "manifest.json",
])  # fmt: skip
def test_a_flipped_byte_in_each_file_of_a_state_is_skipped_and_named(make_model, tmp_path, name):
    run = new_run(make_model(), "adamw")
    train(run, 1)
    older = save_checkpoint(tmp_path, 1, partial(write, run), identity={"model": "m"})
    newer = save_checkpoint(tmp_path, 2, partial(write, run), identity={"model": "m"})
    data = bytearray((newer / name).read_bytes())
    data[len(data) // 3] ^= 1
    (newer / name).write_bytes(data)
    found = find_checkpoint(tmp_path, {"model": "m"})
    assert (found.path, found.step) == (older, 1)
    ((path, why),) = found.skipped
    assert path == newer
    assert (
        why.startswith("manifest.json")
        if name == "manifest.json"
        else why == f"the content of {name} does not have the hash it was written with"
    )


@pytest.mark.parametrize("limit", [3_000, 30_000, 200_000])
def test_a_disk_that_is_full_wherever_a_state_is_being_written(make_model, tmp_path, limit):
    """The model file (25 kB) is refused at the first limit, the optimizer (50 kB) at the second; the third is enough."""
    import resource

    run = new_run(make_model(), "adamw")
    train(run, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        if limit == 200_000:
            save_checkpoint(tmp_path, 1, partial(write, run), identity={})
        else:
            with pytest.raises(CheckpointError, match="refuses a file this large"):
                save_checkpoint(tmp_path, 1, partial(write, run), identity={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == (["checkpoint-1"] if limit == 200_000 else [])


def test_saving_leaves_the_progress_bar_setting_alone(make_model, tmp_path, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    write_model(make_model(), tmp_path)
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")


def test_the_tokenizer_is_saved_beside_the_model(make_model, tmp_path):
    run = new_run(make_model(), "sgd")
    run.processing_class = SimpleNamespace(save_pretrained=lambda folder: (folder / "tokenizer.json").write_text("{}"))
    write(run, tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    assert state_module.__all__ == ["TrainState", "TrainerControl", "TrainerState", "random_state", "set_random_state"]
