"""What is refused before torch is imported."""

import pytest

from burnish.cli.early import early_checks
from burnish.config import ConfigError, DataConfig, DPOConfig, KTOConfig, ModelConfig, RewardConfig, SFTConfig
from burnish.data.rows import DataError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 3)
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    (tmp_path / "bad.jsonl").write_text('{"txt": "a"}\n')
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')


def check(model=None, data=None, args=None, method=SFTConfig):
    early_checks(
        ModelConfig(**{"model_name_or_path": "model"} | (model or {})),
        DataConfig(**{"dataset_name": "rows.jsonl"} | (data or {})),
        method(**(args or {})),
    )


@pytest.mark.parametrize(
    ("model", "data", "args"),
    [
        ({}, {}, {}),
        ({"model_name_or_path": "org/model"}, {}, {}),
        ({}, {"dataset_name": "chat.jsonl"}, {}),
        ({}, {"dataset_streaming": True}, {"max_steps": 5}),
        ({}, {"test_split_size": 1}, {"eval_strategy": "epoch"}),
        ({}, {"eval_datasets": {"a": "chat.jsonl"}}, {"eval_on_start": True}),
        ({}, {"dataset_name": None, "datasets": [{"path": "rows.jsonl"}, {"path": "chat.jsonl", "split": "train[:1]"}]}, {}),
        ({}, {}, {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.0}}),
    ],
)
def test_what_could_run_is_let_through(model, data, args):
    check(model, data, args)


@pytest.mark.parametrize(
    ("model", "data", "args", "sentence"),
    [
        ({"model_name_or_path": None}, {}, {}, "No model is named; give --model_name_or_path, a local folder or a hub id."),
        (
            {"model_name_or_path": "./nope"},
            {},
            {},
            "model_name_or_path='./nope' must be a folder that holds config.json or adapter_config.json, and there is no such folder.",
        ),
        (
            {"model_name_or_path": "rows.jsonl"},
            {},
            {},
            "model_name_or_path='rows.jsonl' must be a folder that holds config.json or adapter_config.json, and this is a file.",
        ),
        (
            {"adapter_name_or_path": "model"},
            {},
            {},
            "adapter_name_or_path='model' must be a folder that holds adapter_config.json, and this one does not.",
        ),
        ({}, {"dataset_name": None}, {}, "No data is named; give --dataset_name, a local file, a folder or a hub id."),
        ({}, {"dataset_streaming": True}, {}, "dataset_streaming=True needs max_steps, because the length of a stream is not known."),
        (
            {},
            {"test_split_size": 1},
            {},
            "test_split_size=1 has no effect with eval_strategy='no'; set eval_strategy='steps' or 'epoch'.",
        ),
        (
            {},
            {},
            {"eval_strategy": "epoch"},
            "eval_strategy='epoch' needs data to evaluate on; give dataset_test_split, eval_datasets or test_split_size.",
        ),
        (
            {},
            {},
            {"eval_on_start": True},
            "eval_on_start=True needs data to evaluate on; give dataset_test_split, eval_datasets or test_split_size.",
        ),
        (
            {},
            {},
            {"resume_from_checkpoint": "runs/nope"},
            "resume_from_checkpoint='runs/nope' must be 'auto', 'never' or a checkpoint's folder.",
        ),
        (
            {},
            {},
            {"lr_scheduler_kwargs": {"power": 2}},
            "lr_scheduler_kwargs ['power'] do not all belong to the linear schedule; remove the others.",
        ),
    ],
)
def test_options_that_could_not_run(model, data, args, sentence):
    with pytest.raises(ConfigError) as refused:
        check(model, data, args)
    assert str(refused.value) == sentence


COLUMNS = "bad.jsonl line 1 has the columns ['txt'], but a row needs 'text', "


@pytest.mark.parametrize(
    ("data", "args", "sentence"),
    [
        ({"dataset_name": "bad.jsonl"}, {}, COLUMNS),
        ({"dataset_name": None, "datasets": [{"path": "rows.jsonl"}, {"path": "bad.jsonl"}]}, {}, COLUMNS),
        ({"eval_datasets": {"a": "bad.jsonl"}}, {"eval_strategy": "epoch"}, COLUMNS),
        ({"dataset_name": "bad.jsonl", "dataset_streaming": True}, {"max_steps": 5}, "bad.jsonl line 1 has the columns ['txt'], but"),
        ({}, {"dataset_text_field": "body"}, "rows.jsonl line 1 has the columns ['text'], but a row needs 'body', "),
        ({"dataset_name": "nope.jsonl"}, {}, "There is no file or folder nope.jsonl (did you mean 'rows.jsonl'?)."),
    ],
)  # fmt: skip
def test_data_that_could_not_be_read(data, args, sentence):
    with pytest.raises(DataError) as refused:
        check(data=data, args=args)
    assert str(refused.value).startswith(sentence)


def test_a_text_field_by_another_name_is_read():
    check(data={"dataset_name": "bad.jsonl"}, args={"dataset_text_field": "txt"})


FOLDER = "must be a folder that holds config.json or adapter_config.json, and"


@pytest.mark.parametrize("method", [DPOConfig, KTOConfig])
@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("./nope", f"ref_model_name_or_path='./nope' {FOLDER} there is no such folder."),
        ("rows.jsonl", f"ref_model_name_or_path='rows.jsonl' {FOLDER} this is a file."),
        ("empty", f"ref_model_name_or_path='empty' {FOLDER} this one does not."),
        ("untyped", "untyped/config.json names no model_type; give the folder of a model that transformers can load."),
    ],
)
def test_a_reference_that_is_none(tmp_path, method, reference, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "untyped").mkdir()
    (tmp_path / "untyped" / "config.json").write_text("{}")
    with pytest.raises(ConfigError) as refused:
        check(data={"dataset_name": "pairs.jsonl"}, args={"ref_model_name_or_path": reference}, method=method)
    assert str(refused.value) == sentence


def test_the_reference_s_folder_is_not_written_to(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError) as refused:
        check(data={"dataset_name": "pairs.jsonl"}, args={"ref_model_name_or_path": "other", "output_dir": "other"}, method=DPOConfig)
    assert str(refused.value) == "output_dir='other' is the reference's own folder, which the result would replace; name another."


@pytest.mark.parametrize("method", [DPOConfig, RewardConfig])
def test_pairs_are_let_through(method):
    check(data={"dataset_name": "pairs.jsonl"}, method=method)
    check(model={"model_name_or_path": "org/model"}, data={"dataset_name": "pairs.jsonl"}, method=method)


def test_rows_of_another_method():
    with pytest.raises(DataError, match="^rows.jsonl line 1 has the columns 'text', which are for supervised fine-tuning; give rows of "):
        check(method=DPOConfig)
    with pytest.raises(DataError, match="^pairs.jsonl line 1 has the columns "):
        check(data={"dataset_name": "pairs.jsonl"})
