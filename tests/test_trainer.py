"""The trainer as a Python user meets it: what it takes, what it gives back, what it refuses, and that it continues to the bit."""

from __future__ import annotations

import errno
import json
import re
import textwrap
import time
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from filelock import FileLock
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, TrainerCallback

from burnish import ConfigError, DataConfig, ModelConfig, SFTConfig, SFTTrainer
from burnish.checkpoint.files import CheckpointError
from burnish.checkpoint.state import Snapshot
from burnish.cli.main import main
from burnish.data.rows import DataError
from burnish.data.sources import open_rows
from burnish.models.load import ModelError
from burnish.report.events import read_events
from burnish.run import TrainingError
from tests.tiny import chats, save_tiny_model, texts, tiny_llama, tiny_tokenizer, write_rows
from tests.torture.runs import check_same, lines, result

ROWS = texts(12)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with dropout, so that a random state that is lost shows."""
    return save_tiny_model(tmp_path_factory.mktemp("model"), attention_dropout=0.1)


def config(run, **options):
    given = {"output_dir": str(run), "batch_size": 4, "max_steps": 6, "compute_dtype": "float32", "learning_rate": 1e-2, "logging_steps": 2}
    return SFTConfig(**given | {"save_steps": 2, "disable_tqdm": True} | options)


def trainer(run, model=None, *, options=None, **given):
    made = {"train_dataset": ROWS, "processing_class": tiny_tokenizer()} | given
    return SFTTrainer(tiny_llama(attention_dropout=0.1) if model is None else model, config(run, **options or {}), **made)


class CrashError(RuntimeError):
    pass


class Crash(TrainerCallback):
    """Before the step after `step` steps, the process is gone."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **given):
        if state.global_step == self.step:
            raise CrashError


def assert_continues(make, tmp_path, at=3):
    """`make(run, callbacks)` trained without a break, and with a crash after `at` steps and a second trainer: the same to the bit."""
    make(tmp_path / "whole", []).train()
    with pytest.raises(CrashError):
        make(tmp_path / "broken", [Crash(at)]).train()
    again = make(tmp_path / "broken", [])
    again.train()
    assert again.state.global_step == 6
    check_same(result(tmp_path / "broken"), result(tmp_path / "whole"))
    return again


# What it takes


def test_a_model_by_name_and_the_same_as_an_object(folder, tmp_path):
    """Path or str, with the tokenizer found beside it, or the object with its tokenizer given."""
    weights = []
    for i, (model, given) in enumerate(
        (
            (folder, {"processing_class": None}),
            (str(folder), {"processing_class": None}),
            (AutoModelForCausalLM.from_pretrained(folder), {"processing_class": None}),
            (AutoModelForCausalLM.from_pretrained(folder), {}),
        )
    ):
        one = trainer(tmp_path / str(i), model, **given)
        one.train()
        weights.append([parameter.detach().clone() for parameter in one.model.parameters()])
    for others in weights[1:]:
        assert all(map(torch.equal, weights[0], others))


def test_rows_of_every_kind_of_source_give_the_same_run(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    sources = [
        ROWS,
        file,
        str(file),
        datasets.Dataset.from_list(ROWS),
        datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)),
        open_rows(file),
    ]
    runs = [trainer(tmp_path / str(i), train_dataset=source) for i, source in enumerate(sources)]
    losses = [run.train().training_loss for run in runs]
    assert set(losses) == {losses[0]}


def test_a_formatting_func(tmp_path):
    rows = [{"question": row["text"]} for row in ROWS]
    one = trainer(tmp_path / "a", train_dataset=rows, formatting_func=lambda row: row["question"]).train()
    assert one.training_loss == trainer(tmp_path / "b").train().training_loss


def test_options_of_the_model_may_be_said_in_either_configuration(folder, tmp_path):
    args = SFTConfig(output_dir=str(tmp_path / "run"), max_steps=1, disable_tqdm=True)
    one = SFTTrainer(str(folder), args, train_dataset=ROWS, model_config=ModelConfig(use_peft=True, compute_dtype="float32"))
    assert (one.args.compute_dtype, one.model_config.model_name_or_path) == ("float32", str(folder))
    one.train()
    written = (tmp_path / "run" / "resolved.yaml").read_text()
    assert f"model_name_or_path: {folder}\n" in written
    assert written.count("compute_dtype: float32\n") == 1


TRL_SCRIPT = """
    from trl import SFTConfig, SFTTrainer
    from datasets import load_dataset
    from peft import LoraConfig

    dataset = load_dataset("json", data_files="{rows}", split="train")

    training_args = SFTConfig(
        output_dir="{run}",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        learning_rate=2e-4,
        num_train_epochs=1,
        max_length=128,
        bf16=False,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="epoch",
        report_to="none",
        warmup_ratio=0.1,
        lr_scheduler_type="cosine",
        seed=0,
        completion_only_loss=True,
    )

    trainer = SFTTrainer(
        model="{model}",
        args=training_args,
        train_dataset=dataset,
        eval_dataset=dataset.select(range(3)),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.evaluate()
    trainer.save_model(training_args.output_dir)
"""


def test_a_script_for_trl_runs_after_its_import_line_is_changed(folder, tmp_path, monkeypatch):
    rows = [
        {"prompt": [{"role": "user", "content": one["text"]}], "completion": [{"role": "assistant", "content": "w1 w2"}]} for one in ROWS
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    script = textwrap.dedent(TRL_SCRIPT).format(rows=file, run=tmp_path / "run", model=folder)
    script = script.replace("from trl import", "from burnish import")
    names: dict[str, object] = {}
    exec(compile(script, "train.py", "exec"), names)
    done = names["trainer"]
    assert isinstance(done, SFTTrainer)
    assert done.args.batch_size == 4
    assert done.state.global_step == 3
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    assert isinstance(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run"), PeftModel)


# What it gives back


def test_the_result_the_log_and_the_lines(tmp_path):
    one = trainer(tmp_path / "run", eval_dataset=texts(3, seed=1), options={"eval_strategy": "steps", "eval_steps": 3})
    done = one.train()
    assert done.global_step == 6
    written = lines(tmp_path / "run")
    assert [line["step"] for line in written] == [2, 3, 4, 6, 6]
    losses = [line["loss"] for line in written if "loss" in line]
    assert done.training_loss == done.metrics["train_loss"] == pytest.approx(sum(losses) / 3)
    history = [
        {name: value for name, value in entry.items() if "second" not in name and "runtime" not in name} for entry in one.state.log_history
    ]
    assert [entry["step"] for entry in history] == [2, 3, 4, 6, 6]
    for entry, line in zip(history, written, strict=True):
        assert entry.items() >= line.items()
    assert one.state.epoch == 2.0
    assert (one.state.max_steps, one.state.num_train_epochs) == (6, 3)


def test_evaluation_before_during_and_after_training(tmp_path):
    one = trainer(tmp_path / "run", eval_dataset=texts(3, seed=1))
    before = one.evaluate()["eval_loss"]
    one.train()
    after = one.evaluate()["eval_loss"]
    assert after < before
    assert one.evaluate(ROWS)["eval_loss"] != after
    assert one.evaluate()["eval_loss"] == after  # its own set again
    assert one.model.training


def test_training_again_finds_the_run_finished(tmp_path, capsys):
    one = trainer(tmp_path / "run")
    first = one.train()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert one.train()[:2] == first[:2]
    assert f"The run in {tmp_path / 'run'} is finished, at step 6; overwrite_output_dir begins anew.\n" in capsys.readouterr().out
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


class Fails(TrainerCallback):
    """Once, with the gradients of the step after `step` steps."""

    def __init__(self, step):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **given):
        if state.global_step == self.step:
            self.step = None
            raise CrashError


def test_training_again_after_a_step_that_failed(tmp_path):
    whole, again = trainer(tmp_path / "whole"), trainer(tmp_path / "run", callbacks=[Fails(3)])
    whole.train()
    with pytest.raises(CrashError):
        again.train()
    again.train()
    check_same(result(tmp_path / "run"), result(tmp_path / "whole"))


@pytest.mark.parametrize("options", [{}, {"overwrite_output_dir": True}], ids=str)
def test_training_again_with_no_checkpoint_to_go_on_from(tmp_path, options):
    one = trainer(tmp_path / "run", options={"save_strategy": "no", "save_steps": 500, **options})
    one.train()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError) as stopped:
        one.train()
    assert str(stopped.value) == f"This trainer has done 6 steps and {tmp_path / 'run'} holds no checkpoint of them; make a new trainer."
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_overwrite_output_dir_deletes_nothing_of_this_trainer(tmp_path):
    one = trainer(tmp_path / "run", options={"overwrite_output_dir": True})
    one.train()
    before = result(tmp_path / "run")
    one.train()
    check_same(result(tmp_path / "run"), before)


def test_overwrite_output_dir_begins_anew(tmp_path):
    trainer(tmp_path / "run").train()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    one = trainer(tmp_path / "run", options={"overwrite_output_dir": True, "learning_rate": 1e-3, "save_steps": 6})
    one.train()
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-6"]
    assert [line["step"] for line in lines(tmp_path / "run")] == [2, 4, 6]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_save_model_writes_what_transformers_reads(tmp_path):
    one = trainer(tmp_path / "run")
    one.train()
    one.save_model()
    one.save_model(tmp_path / "elsewhere")
    for path in (tmp_path / "run", tmp_path / "elsewhere"):
        again = AutoModelForCausalLM.from_pretrained(path)
        assert all(map(torch.equal, one.model.parameters(), again.parameters()))
        assert transformers.AutoTokenizer.from_pretrained(path).chat_template == one.processing_class.chat_template


def test_what_a_run_is_made_of_is_written_beside_it(folder, tmp_path):
    one = trainer(tmp_path / "run", str(folder), data_config=DataConfig(dataset_name="rows.jsonl"))
    one.train()
    again = main(["inspect", "sft", "--config", str(tmp_path / "run" / "resolved.yaml"), "--rows", "0"])
    assert again == 2  # rows.jsonl is not there: the file was read
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["train"]["fingerprint"] == one.sets.train.fingerprint
    assert data["train"]["examples"] == 12
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__


# To the bit


def test_a_data_set(tmp_path):
    assert_continues(lambda run, callbacks: trainer(run, callbacks=callbacks), tmp_path)


def test_lora_by_object(folder, tmp_path):
    peft = LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
    again = assert_continues(lambda run, callbacks: trainer(run, str(folder), peft_config=peft, callbacks=callbacks), tmp_path)
    again.save_model()
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "broken")
    ids = torch.arange(11, 31)[None]
    again.model.eval()
    assert torch.equal(loaded.eval()(ids).logits, again.model(ids, use_cache=False).logits)
    assert not (tmp_path / "broken" / "checkpoint-6" / "model.safetensors").exists()


def test_lora_by_flags(folder, tmp_path, capsys):
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    words = f"sft --model_name_or_path {folder} --dataset_name {rows} --compute_dtype float32 --max_steps 6 --save_steps 2 --batch_size 4"
    for run in ("whole", "broken"):
        assert (
            main(
                [*words.split(), "--use_peft", "--lora_r", "4", "--lora_target_modules", "all-linear", "--output_dir", str(tmp_path / run)]
            )
            == 0
        )
        assert f"The adapter is in {tmp_path / run}; read back with transformers, its logits differ by 0.\n" in capsys.readouterr().out
    check_same(result(tmp_path / "broken"), result(tmp_path / "whole"))
    assert main(["sft", "--config", str(tmp_path / "whole" / "resolved.yaml")]) == 0  # the same run, by its own account
    assert f"The run in {tmp_path / 'whole'} is finished, at step 6" in capsys.readouterr().out
    assert json.loads((tmp_path / "whole" / "adapter_config.json").read_text())["r"] == 4
    assert main(["merge", "--adapter", str(tmp_path / "whole"), "--output_dir", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapted = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "whole")
    ids = torch.arange(11, 31)[None]
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)


def test_a_user_s_own_optimizer_and_schedule(tmp_path):
    def make(run, callbacks):
        model = tiny_llama(attention_dropout=0.1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
        made = trainer(run, model, callbacks=callbacks, optimizers=(optimizer, schedule))
        assert made.optimizer is optimizer
        return made

    again = assert_continues(make, tmp_path)
    rates = [entry["learning_rate"] for entry in again.state.log_history]
    assert rates == pytest.approx([0.5, 0.05, 0.005])


def test_an_optimizer_alone_gets_the_schedule_of_the_options(tmp_path):
    model = tiny_llama()
    one = trainer(tmp_path / "run", model, optimizers=(torch.optim.SGD(model.parameters(), lr=0.6), None))
    one.train()
    assert [entry["learning_rate"] for entry in one.state.log_history] == pytest.approx([0.5, 0.3, 0.1])


@pytest.mark.parametrize("kind", ["a file", "datasets"])
def test_a_stream(tmp_path, kind):
    file = write_rows(tmp_path / "rows.jsonl", ROWS)

    def make(run, callbacks):
        rows = open_rows(file, streaming=True) if kind == "a file" else datasets.Dataset.from_list(ROWS).to_iterable_dataset()
        return trainer(run, train_dataset=rows, callbacks=callbacks)

    assert_continues(make, tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_weighted_mixture_by_yaml(folder, tmp_path, monkeypatch, capsys, streaming):
    """Killed by Ctrl-C at step 3."""
    files = [write_rows(tmp_path / f"{name}.jsonl", texts(10, seed)) for seed, name in enumerate("ab")]
    yaml = "".join(f"  - path: {file}\n    weight: {weight}\n" for file, weight in zip(files, (3, 1), strict=True))
    (tmp_path / "run.yaml").write_text(
        f"model_name_or_path: {folder}\nbatch_size: 4\nmax_steps: 6\nsave_steps: 2\nlogging_steps: 2\ncompute_dtype: float32\n"
        f"dataset_streaming: {str(streaming).lower()}\ndatasets:\n{yaml}"
    )

    def train(run):
        return main(["sft", "--config", str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path / run)])

    assert train("whole") == 0
    import burnish.loop

    plain = burnish.loop.optimizer_step

    def interrupted(run, batch, **given):
        if run.state.trainer.global_step == 3:
            raise KeyboardInterrupt
        plain(run, batch, **given)

    with monkeypatch.context() as patch:
        patch.setattr(burnish.loop, "optimizer_step", interrupted)
        assert train("broken") == 130
    assert train("broken") == 0
    assert f"Continuing from {tmp_path}/broken/checkpoint-2, step 2 of 6.\n" in capsys.readouterr().out
    check_same(result(tmp_path / "broken"), result(tmp_path / "whole"))


def test_from_a_checkpoint_of_another_folder(tmp_path):
    """The lines before it come along."""
    trainer(tmp_path / "whole").train()
    trainer(tmp_path / "branch", options={"resume_from_checkpoint": str(tmp_path / "whole" / "checkpoint-4")}).train()
    check_same(result(tmp_path / "branch"), result(tmp_path / "whole"))
    assert not (tmp_path / "branch" / "checkpoint-2").exists()


def test_resume_by_argument(tmp_path):
    one = trainer(tmp_path / "run")
    one.train()
    with pytest.raises(CheckpointError, match="holds a run already"):
        trainer(tmp_path / "run").train(resume_from_checkpoint=False)
    again = trainer(tmp_path / "run")
    again.train(resume_from_checkpoint=tmp_path / "run" / "checkpoint-2")
    assert all(map(torch.equal, one.model.parameters(), again.model.parameters()))


# What stops a run


def test_what_happens_while_a_model_is_loaded_is_an_event_too(tmp_path, monkeypatch):
    """Another rank's end, say."""

    def start(*given, **wanted):
        given[-1].__self__.events.write("failure")
        raise ModelError

    monkeypatch.setattr("burnish.trainer.trainer.start_policy", start)
    with pytest.raises(ModelError):
        trainer(tmp_path / "run")
    assert [(event["event"], event["step"]) for event in read_events(tmp_path / "run" / "events.jsonl")] == [("failure", 0)]


class Poison(TrainerCallback):
    """Before step 4, a weight that is not finite."""

    def on_step_begin(self, args, state, control, model, **given):
        if state.global_step == 3:
            with torch.no_grad():
                model.lm_head.weight[0, 0] = float("inf")


def test_a_loss_that_is_not_finite_names_step_rows_and_the_last_checkpoint(tmp_path):
    one = trainer(tmp_path / "run", callbacks=[Poison()])
    with pytest.raises(TrainingError) as stopped:
        one.train()
    said = re.fullmatch(
        r"The loss of step 4 is not finite with rows (.*); look at them, or lower the learning rate; the last good checkpoint is (.*)\.",
        str(stopped.value),
    )
    assert said
    drawn = [f"rows:{i}" for i in one.sets.train.order(None, seed=42, shuffle=True).indices(1)[:4]]
    assert sorted(said[1].split(", ")) == sorted(drawn)
    assert said[2] == str(tmp_path / "run" / "checkpoint-2")
    assert one.state.global_step == 3
    assert [line["step"] for line in lines(tmp_path / "run")] == [2]  # what was logged is on disk


@pytest.mark.parametrize("full", [False, True], ids=["written", "disk full"])
def test_a_run_that_fails_waits_for_the_checkpoint_that_it_is_writing(tmp_path, monkeypatch, capsys, full):
    write_rest = Snapshot.write_rest

    def slow(*given):
        time.sleep(0.5)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_rest(*given)

    monkeypatch.setattr(Snapshot, "write_rest", slow)
    with pytest.raises(TrainingError):
        trainer(tmp_path / "run", callbacks=[Poison()], options={"save_async": True}).train()
    assert [path.name for path in (tmp_path / "run").glob("*checkpoint-*")] == ([] if full else ["checkpoint-2"])
    assert ("checkpoint-2 was not saved because the disk is full" in capsys.readouterr().out) == full


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path):
    model = tiny_llama()
    model.model.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(
        TrainingError, match=r"^The gradient norm of step 1 is not finite with rows .*; no checkpoint was written before\.$"
    ):
        trainer(tmp_path / "run", model).train()
    assert all(map(torch.equal, model.parameters(), before))


def test_a_trainable_tensor_without_a_gradient(tmp_path):
    model = tiny_llama()
    model.model.forgotten = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(TrainingError) as stopped:
        trainer(tmp_path / "run", model).train()
    assert str(stopped.value) == (
        "After the first backward these trainable tensors have no finite gradient: model.forgotten; freeze or mend them."
    )
    model.model.forgotten.requires_grad_(False)
    trainer(tmp_path / "run", model).train()


# What it refuses


def refused(error, sentence, make):
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == sentence


def test_arguments_that_contradict_each_other(folder, tmp_path):
    run = tmp_path / "run"
    refused(ConfigError, "There is nothing to train on; give train_dataset.", lambda: trainer(run, train_dataset=None).train())
    refused(TrainingError, "There is nothing to evaluate on; give eval_dataset.", lambda: trainer(run).evaluate())
    refused(
        ConfigError,
        "eval_strategy='steps' needs data to evaluate on; give eval_dataset.",
        lambda: trainer(run, options={"eval_strategy": "steps"}, eval_dataset={}),
    )
    refused(
        ConfigError,
        "eval_on_start=True needs data to evaluate on; give eval_dataset.",
        lambda: trainer(run, options={"eval_on_start": True}),
    )
    refused(
        ConfigError,
        "args is a TrainingArguments; SFTTrainer takes a SFTConfig.",
        lambda: SFTTrainer(str(folder), transformers.TrainingArguments(output_dir=str(run), use_cpu=True), train_dataset=ROWS),
    )
    refused(
        ConfigError,
        "The model was not loaded from anywhere that could hold its tokenizer; give processing_class.",
        lambda: trainer(run, processing_class=None),
    )
    refused(
        ConfigError,
        "dtype='bfloat16' has no effect on a model that is loaded already; leave it out, or give the model's name.",
        lambda: trainer(run, model_config=ModelConfig(dtype="bfloat16")),
    )
    refused(
        ConfigError,
        "peft_config and model_config with use_peft=True both describe an adapter; give one of them.",
        lambda: trainer(run, peft_config=LoraConfig(), model_config=ModelConfig(use_peft=True)),
    )
    refused(
        ConfigError,
        "compute_dtype is 'bfloat16' in model_config and 'float32' in args; say it in one of them.",
        lambda: trainer(run, model_config=ModelConfig(compute_dtype="bfloat16")),
    )
    assert not run.exists()


def test_streams_that_could_not_be_read(tmp_path):
    stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    refused(
        ConfigError,
        "A stream does not say how long it is; give max_steps.",
        lambda: trainer(tmp_path, train_dataset=stream, options={"max_steps": -1}),
    )
    refused(
        DataError,
        "stream is a stream, and an evaluation set is read whole, more than once; give a file or a data set.",
        lambda: trainer(tmp_path, eval_dataset=stream),
    )


def test_optimizers_that_would_train_nothing(folder, tmp_path):
    model, other = tiny_llama(), tiny_llama()
    own, foreign = (torch.optim.SGD(one.parameters(), lr=0.1) for one in (model, other))
    schedule = torch.optim.lr_scheduler.StepLR(foreign, 1)
    wrong_tensors = "The optimizer in `optimizers` does not hold this model's trainable tensors; make it of the model you pass."
    wrong_schedule = (
        "The schedule in `optimizers` drives another optimizer than the one that trains; give (optimizer, its schedule)."
    )  # fmt: skip
    for sentence, given, options in (
        (wrong_tensors, (foreign, None), {}),
        (wrong_tensors, (own, None), {"peft_config": LoraConfig(task_type="CAUSAL_LM")}),
        (wrong_schedule, (own, schedule), {}),
        (wrong_schedule, (None, schedule), {}),
        (
            "ReduceLROnPlateau needs a metric at every step, which the loop has not; give a schedule of the step number.",
            (own, torch.optim.lr_scheduler.ReduceLROnPlateau(own)),
            {},
        ),
    ):
        refused(ModelError, sentence, lambda given=given, options=options: trainer(tmp_path, model, optimizers=given, **options))


def test_a_run_with_other_weights_of_its_sources_is_another_run(folder, tmp_path, capsys):
    files = [write_rows(tmp_path / f"{name}.jsonl", texts(8, seed)) for seed, name in enumerate("ab")]

    def train(weight):
        mixture = json.dumps([{"path": str(files[0]), "weight": weight}, {"path": str(files[1])}])
        words = f"sft --model_name_or_path {folder} --compute_dtype float32 --max_steps 2 --output_dir {tmp_path / 'run'}"
        return main([*words.split(), "--datasets", mixture])

    assert train(2) == 0
    assert train(3) == 2
    assert capsys.readouterr().err.endswith(
        f"error: {tmp_path}/run/checkpoint-2 belongs to another run (weights of the data is '(2.0, 1.0)' there and '(3.0, 1.0)' here); "
        "give this run another output_dir, or set overwrite_output_dir to start over.\n"
    )


def test_a_folder_that_another_process_trains_into(tmp_path):
    """As when torchrun is killed and its workers are not."""
    one = trainer(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        refused(
            CheckpointError,
            f"Another process trains into {tmp_path / 'run'}; wait for it, end it, or name another output_dir.",
            one.train,
        )
    one.train()
    trainer(tmp_path / "run").train()


def test_what_a_stream_dropped_is_reported(tmp_path, capsys):
    rows = datasets.Dataset.from_list([*ROWS, {"text": " ".join(["w1"] * 200)}]).to_iterable_dataset()
    trainer(tmp_path / "run", train_dataset=rows, options={"max_length": 64}).train()
    said = capsys.readouterr().out
    assert "Read from the stream: " in said
    assert "1 row longer than max_length=64, dropped" in said or "2 rows longer than max_length=64, dropped" in said


def test_chats_and_texts_have_their_own_default_for_what_is_trained(tmp_path):
    """The account that is printed before step 1 is the one of the examples."""
    one = trainer(tmp_path / "run", train_dataset=chats(6), options={"assistant_only_loss": True})
    report = one.sets.train.parts[0].report
    assert (report.trained_tokens, report.tokens) == (int(one.sets.train.trained.sum()), int(one.sets.train.lengths.sum()))
    assert report.trained_tokens < report.tokens / 2
    assert Path(one.args.output_dir) == tmp_path / "run"
