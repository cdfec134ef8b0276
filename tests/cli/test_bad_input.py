"""What `burnish sft` says to bad input: one sentence on stderr, exit status 2, and nothing loaded before it has to be."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import chats, save_tiny_model, texts, tiny_llama, tiny_tokenizer, write_rows

from burnish.cli.main import main

OPTIONS = {"model_name_or_path": "model", "dataset_name": "chats.jsonl", "output_dir": "out", "compute_dtype": "float32", "max_steps": 4}


def argv(**options):
    """A command line; a switch that stands alone is True."""
    said = {name: value for name, value in {**OPTIONS, **options}.items() if value is not None}
    return ["sft", *(word for name, value in said.items() for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)]))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and rows, good and bad."""
    folder = tmp_path_factory.mktemp("bad")
    save_tiny_model(folder / "model")
    for name, rows in {"chats": chats(20), "others": chats(20, seed=1), "texts": texts(20)}.items():
        write_rows(folder / f"{name}.jsonl", rows)
    user = {"role": "user", "content": "w1 w2"}
    write_rows(folder / "columns.jsonl", [{"instruction": "a", "response": "b"}])
    write_rows(folder / "roles.jsonl", [*chats(1), {"messages": [user, {"role": "asistant", "content": "w3"}]}])
    write_rows(folder / "users.jsonl", [{"messages": [user]}] * 3)
    write_rows(folder / "masked.jsonl", [{"input_ids": [11, 12], "labels": [-100, -100]}])
    write_rows(folder / "large_ids.jsonl", [{"input_ids": [11, 12]}, {"input_ids": [11, 3000]}])
    write_rows(folder / "late.jsonl", [*texts(150), {"text": 3}])
    (folder / "torn.jsonl").write_text('{"text": "a b"}\n{"text": "a b"\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.jsonl").write_text("\n \n")
    (folder / "file").write_text("x")

    tiny_llama().save_pretrained(folder / "no_tokenizer")
    for name, options in {"no_template": {"chat_template": None}, "no_eos": {"eos_token": None}}.items():
        tiny_llama().save_pretrained(folder / name)
        tiny_tokenizer(**options).save_pretrained(folder / name)
    save_tiny_model(folder / "small_vocabulary", vocab_size=50)
    for name in ("no_weights", "torn_weights", "half_weights"):
        shutil.copytree(folder / "model", folder / name)
    whole = (folder / "model" / "model.safetensors").read_bytes()
    (folder / "no_weights" / "model.safetensors").unlink()
    (folder / "torn_weights" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "half_weights" / "config.json").write_text((folder / "model" / "config.json").read_text().replace('ers": 2', 'ers": 3'))
    for name, config in {"no_architecture": "{}", "torn_config": "{oops"}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(config)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BURNISH_CACHE", str(folder / "cache"))


EARLY = {
    "a mistyped flag": ({"learning_rat": 1}, "burnish sft has no option --learning_rat; the nearest is --learning_rate."),
    "an option out of range": ({"learning_rate": -1}, "learning_rate must be a number above 0, not -1.0."),
    "no such file": ({"dataset_name": "chat.jsonl"}, "There is no file or folder chat.jsonl (did you mean 'chats.jsonl'?)."),
    "not JSON": (
        {"dataset_name": "torn.jsonl"},
        "torn.jsonl line 2 is not JSON (Expecting ',' delimiter at column 15); write one object on each line.",
    ),
    "wrong columns": (
        {"dataset_name": "columns.jsonl"},
        "columns.jsonl line 1 has the columns ['instruction', 'response'], but a row needs 'text', 'conversations', 'messages', "
        "'prompt'+'completion', 'input_ids' or a formatting_func: column 'instruction' looks like 'prompt', rename it or give a "
        "formatting_func.",
    ),
    "a role that is none": (
        {"dataset_name": "roles.jsonl"},
        "roles.jsonl line 2: 'messages' message 1 has the unknown role 'asistant' (did you mean 'assistant'?); the roles are system, "
        "developer, user, assistant, tool, function, ipython, model, chatbot.",
    ),
    "an empty file": ({"dataset_name": "empty.jsonl"}, "empty.jsonl is empty: it has no rows."),
    "a file of blank lines": ({"dataset_name": "blank.jsonl"}, "blank.jsonl is empty: it has no rows."),
    "assistant_only_loss without conversations": (
        {"dataset_name": "texts.jsonl", "assistant_only_loss": True},
        "assistant_only_loss=True needs conversations, and these rows are text; leave it out.",
    ),
    "completion_only_loss without completions": (
        {"completion_only_loss": True},
        "completion_only_loss=True needs rows with a prompt and a completion, and these are messages; leave it out.",
    ),
    "no such model": (
        {"model_name_or_path": "./modl"},
        "model_name_or_path='./modl' must be a folder that holds config.json or adapter_config.json, and there is no such folder.",
    ),
    "a model's folder that is none": (
        {"model_name_or_path": "no_architecture"},
        "no_architecture/config.json names no model_type; give the folder of a model that transformers can load.",
    ),
    "a configuration that is not JSON": (
        {"model_name_or_path": "torn_config"},
        "torn_config/config.json is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "give the folder of a model that transformers can load.",
    ),
    "a template's file that is not there": (
        {"chat_template_path": "chat.jinja"},
        "chat_template_path='chat.jinja' names a file that is not there.",
    ),
    "an output folder that is a file": (
        {"output_dir": "file"},
        "output_dir='file' cannot be made, because file is a file; name another folder.",
    ),
    "the model's own folder as output": (
        {"output_dir": "model"},
        "output_dir='model' is the model's own folder, which the result would replace; name another.",
    ),
    "a stream without an end": (
        {"dataset_streaming": True, "max_steps": None},
        "dataset_streaming=True needs max_steps, because the length of a stream is not known.",
    ),
    "no such checkpoint": (
        {"resume_from_checkpoint": "out/checkpoint-7"},
        "resume_from_checkpoint='out/checkpoint-7' must be 'auto', 'never' or a checkpoint's folder.",
    ),
    "an unknown tracker": (
        {"report_to": "tensorbord"},
        "report_to must be a list of 'tensorboard', 'trackio', 'wandb' or 'mlflow', not ['tensorbord'].",
    ),
}


def test_torch_is_not_imported_for_what_shows_without_it(folder):
    """All in one process, so that the first import of torch would show in every later line."""
    cases = [argv(**options) for options, _ in EARLY.values()]
    code = (
        "import contextlib, io, json, sys\nfrom burnish.cli.main import main\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n        status = main(argv)\n"
        "    print(json.dumps([status, said.getvalue(), 'torch' in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(cases)], capture_output=True, text=True, check=True)
    found = dict(zip(EARLY, map(json.loads, done.stdout.splitlines()), strict=True))
    assert found == {name: [2, f"error: {sentence}\n", False] for name, (_, sentence) in EARLY.items()}


def test_a_tracker_whose_library_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(argv(report_to="mlflow")) == 2
    said = "report_to names 'mlflow', whose library is not installed; pip install mlflow, or leave it out of report_to."
    assert capsys.readouterr().err == f"error: {said}\n"


LATE = {
    "a later row": ({"dataset_name": "late.jsonl"}, "late.jsonl line 151: 'text' is of type int, not text."),
    "a row with nothing trained": (
        {"dataset_name": "users.jsonl", "assistant_only_loss": True},
        "Not one of the 3 rows of users has a token to train on: assistant_only_loss=True trains the assistant's turns, and there are "
        "none; leave it out, or mend the rows.",
    ),
    "labels that train nothing": (
        {"dataset_name": "masked.jsonl"},
        "Not one of the 1 rows of masked has a token to train on: of those that are not empty (1), labels or masks leave none; "
        "mend the rows.",
    ),
    "a max_length that drops everything": (
        {"max_length": 4},
        "max_length=4 leaves no token to train on in the 20 rows of chats: the shortest has 14 tokens and the median 38; "
        "raise it, or cut rows with truncation_mode.",
    ),
    "a row that is too long to keep": (
        {"max_length": 30, "truncation_mode": "error"},
        "chats.jsonl line 1: 52 tokens are more than max_length=30; raise it, or choose another truncation_mode.",
    ),
    "a token that the model does not know": (
        {"dataset_name": "large_ids.jsonl"},
        "large_ids.jsonl line 2: token id 3,000 is not among the tokenizer's 90; encode the rows with the model's own tokenizer.",
    ),
    "no chat template": (
        {"model_name_or_path": "no_template"},
        "The rows are messages, and the tokenizer has no chat template to write them with; "
        "give one with chat_template_path (a .jinja file, or a tokenizer that has one).",
    ),
    "no EOS": (
        {"model_name_or_path": "no_eos", "dataset_name": "texts.jsonl"},
        "The tokenizer has no EOS token, so a model would never learn to stop; name one with eos_token.",
    ),
    "an EOS that is no token": (
        {"eos_token": "<end>"},
        "eos_token '<end>' is not in the tokenizer's vocabulary; choose one of its tokens.",
    ),
    "no tokenizer": (
        {"model_name_or_path": "no_tokenizer"},
        "The tokenizer of 'no_tokenizer' could not be loaded (the folder holds no tokenizer.json or the like); "
        "give a folder with a transformers model, or a hub id.",
    ),
    "no weights": (
        {"model_name_or_path": "no_weights"},
        "The model 'no_weights' could not be loaded (Error no file named model.safetensors, or pytorch_model.bin, found in directory "
        "no_weights); give a folder with a transformers model, or a hub id.",
    ),
    "torn weights": (
        {"model_name_or_path": "torn_weights"},
        "The model 'torn_weights' could not be loaded (Error while deserializing header: incomplete metadata, file not fully covered); "
        "give a folder with a transformers model, or a hub id.",
    ),
    "weights that lack a layer": (
        {"model_name_or_path": "half_weights"},
        "half_weights has no weights for model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, "
        "model.layers.2.mlp.gate_proj.weight, model.layers.2.mlp.up_proj.weight, model.layers.2.post_attention_layernorm.weight, "
        "9 in all, which would start at random.",
    ),
    "a model with fewer tokens than its tokenizer": (
        {"model_name_or_path": "small_vocabulary"},
        "The tokenizer has 90 tokens and the embedding of small_vocabulary 50; "
        "give the model's own tokenizer, or a model after resize_token_embeddings.",
    ),
}


@pytest.mark.parametrize(("options", "sentence"), LATE.values(), ids=LATE)
def test_what_shows_when_rows_and_model_are_read(options, sentence, capsys, folder):
    assert main(argv(**options)) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
    assert not (folder / "out").exists()


def test_one_row_with_nothing_trained_is_dropped_and_counted(capsys, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [*chats(5), {"messages": [{"role": "user", "content": "w1"}]}])
    assert main(argv(dataset_name=rows, assistant_only_loss=True, output_dir=tmp_path / "run", max_steps=1)) == 0
    assert "1 row with no trained token, dropped (first: rows.jsonl line 6)." in capsys.readouterr().out


@pytest.fixture
def trained(tmp_path, capsys):
    """The folder of a run of four steps, with checkpoints 2 and 4."""
    assert main(argv(output_dir=tmp_path / "run", save_steps=2)) == 0
    capsys.readouterr()
    return tmp_path / "run"


def error_of(capsys):
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").removesuffix("\n")


REMEDY = "give this run another output_dir, or set overwrite_output_dir to start over."


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"batch_size": 3}, "batch_size is '8' there and '3' here"),
        ({"max_steps": 6}, "steps is '4' there and '6' here"),
        ({"learning_rate": 1e-3, "seed": 1}, "learning_rate is '2e-05' there and '0.001' here, seed is '42' there and '1' here"),
    ],
)
def test_a_folder_that_holds_a_run_with_other_options(trained, capsys, options, what):
    before = sorted(path.name for path in trained.iterdir())
    assert main(argv(output_dir=trained, **options)) == 2
    assert error_of(capsys) == f"{trained}/checkpoint-4 belongs to another run ({what}); {REMEDY}"
    assert sorted(path.name for path in trained.iterdir()) == before


def test_a_folder_that_holds_a_run_on_other_data_or_of_another_model(trained, capsys, folder, tmp_path):
    save_tiny_model(tmp_path / "other", seed=1)
    for options, what in (({"dataset_name": "others.jsonl"}, "data"), ({"model_name_or_path": tmp_path / "other"}, "model")):
        assert main(argv(output_dir=trained, **options)) == 2
        said = error_of(capsys)
        assert said.startswith(f"{trained}/checkpoint-4 belongs to another run ({what} is '")
        assert said.endswith(REMEDY)
        assert said.count(" there and ") == 1


def test_contradictions_about_a_folder_that_holds_a_run(trained, capsys):
    assert main(argv(output_dir=trained, resume_from_checkpoint="never")) == 2
    assert error_of(capsys) == (
        f"{trained} holds a run already (up to checkpoint-4) and resume_from_checkpoint is 'never'; "
        "choose another output_dir, or set overwrite_output_dir=True to delete it."
    )
    checkpoint = trained / "checkpoint-2"
    assert main(argv(output_dir=trained, resume_from_checkpoint=checkpoint, overwrite_output_dir=True)) == 2
    said = f"overwrite_output_dir=True begins anew, and resume_from_checkpoint='{checkpoint}' does not; give one of them."
    assert error_of(capsys) == said
    assert checkpoint.is_dir()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_with_a_flipped_byte_is_skipped_by_name_and_the_one_before_is_taken(trained, capsys):
    weights = (trained / "model.safetensors").read_bytes()
    flip(trained / "checkpoint-4" / "optimizer.pt")
    assert main(argv(output_dir=trained, save_steps=2)) == 0
    said = capsys.readouterr().out
    assert "Skipped checkpoint-4: the content of optimizer.pt does not have the hash it was written with\n" in said
    assert f"Continuing from {trained}/checkpoint-2, step 2 of 4.\n" in said
    assert (trained / "model.safetensors").read_bytes() == weights

    flip(trained / "checkpoint-4" / "model.safetensors")
    assert main(argv(output_dir=trained, resume_from_checkpoint=trained / "checkpoint-4")) == 2
    assert error_of(capsys) == (
        f"{trained}/checkpoint-4 cannot be resumed from: the content of model.safetensors does not have the hash it was written with; "
        "name another checkpoint, or none to take the newest valid one."
    )


def test_metrics_that_a_checkpoint_counts_and_that_are_gone(trained, capsys):
    size = (trained / "metrics.jsonl").stat().st_size
    (trained / "metrics.jsonl").unlink()
    assert main(argv(output_dir=trained)) == 2
    assert error_of(capsys) == (
        f"{trained}/metrics.jsonl has 0 bytes, but the checkpoint was written when it had {size:,}; "
        "put the missing lines back, or start over in another output_dir."
    )


def burnish(*words, files_up_to=None):
    """A process of its own, which may not write files larger than so many bytes."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (files_up_to, files_up_to))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "burnish", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, preexec_fn=limit if files_up_to else None)


def test_a_file_that_may_not_grow_during_a_save(tmp_path):
    done = burnish(*argv(output_dir=tmp_path / "run", save_steps=2), files_up_to=100_000)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: {tmp_path}/run/checkpoint-2 was not saved because the disk or `ulimit -f` refuses a file this large: it needs more than "
    )
    assert done.stderr.endswith(
        "raise the limit or name another output_dir, and resume from the checkpoints before it, which are untouched.\n"
    )
    assert not list((tmp_path / "run").glob("*checkpoint*"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system needs the rights of root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_during_a_save_and_after_room_is_made(small_disk, tmp_path, capsys):
    assert main(argv(output_dir=tmp_path / "run", save_steps=1)) == 0
    command = argv(output_dir=small_disk / "run", save_steps=1)
    capsys.readouterr()
    assert main(command) == 2
    said = error_of(capsys)
    kept = sorted(path.name for path in (small_disk / "run").glob("*checkpoint*"))
    assert kept
    failed = f"checkpoint-{len(kept) + 1}"
    assert said.startswith(f"{small_disk}/run/{failed} was not saved because the disk is full: it needs about ")
    assert said.endswith("free some space or name another output_dir, and resume from the checkpoints before it, which are untouched.")

    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert main(command) == 0
    assert f"Continuing from {small_disk}/run/{kept[-1]}, " in capsys.readouterr().out
    weights = Path("run/model.safetensors")
    assert (small_disk / weights).read_bytes() == (tmp_path / weights).read_bytes()


def test_a_full_disk_when_a_line_is_logged_and_when_the_model_is_written(small_disk, capsys):
    """Checkpoints off: the first thing that needs room is metrics.jsonl, then the model."""
    (small_disk / "filler").write_bytes(bytes(2**20 - 60_000))
    command = argv(output_dir=small_disk / "run", save_strategy="no", logging_steps=1)
    assert main(command) == 2
    said = error_of(capsys)
    assert said.startswith(f"The model was not written to {small_disk}/run (")
    assert said.endswith("); make room there and start the same command again, which saves it anew.")

    shutil.rmtree(small_disk / "run")
    (small_disk / "filler").write_bytes(bytes(2**20 - 20_480))
    assert main(argv(output_dir=small_disk / "run", save_strategy="no", logging_steps=1, max_steps=200)) == 2
    assert error_of(capsys) == (
        f"{small_disk}/run/metrics.jsonl cannot be written (No space left on device); "
        "free some space and start the same command again, which continues from the last checkpoint."
    )
