"""What the commands of preference methods say to bad input: one sentence, or a count in the report, as the policy says."""

from __future__ import annotations

import pytest
from tests.tiny import preferences, save_tiny_model, tiny_llama, tiny_tokenizer, write_rows

from burnish.cli.main import main

PROMPT = [{"role": "user", "content": "w1 w2 w3"}]
LONG = [{"role": "user", "content": " ".join(["w5"] * 40)}]


def answer(content):
    return [{"role": "assistant", "content": content}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    save_tiny_model(folder / "model")
    tiny_llama().save_pretrained(folder / "other")
    swapped = tiny_tokenizer()
    places = {**swapped.get_vocab(), "w3": 14, "w4": 13}
    swapped.backend_tokenizer.model = type(swapped.backend_tokenizer.model)(places, unk_token="<unk>")
    swapped.save_pretrained(folder / "other")
    good = preferences(6)
    sets = {
        "good": good,
        "equal": [*good, {"prompt": PROMPT, "chosen": answer("w4"), "rejected": answer("w4")}],
        "all_equal": [{"prompt": PROMPT, "chosen": answer("w4"), "rejected": answer("w4")}] * 2,
        "long": [*good, {"prompt": LONG, "chosen": answer("w4"), "rejected": answer("w5")}],
        "labels": [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in good],
        "one_prompt": [{"prompt": PROMPT, "completion": answer(f"w{i}"), "label": i % 2 == 0} for i in range(4)],
        "texts": [{"prompt": "w1 w2", "chosen": "w3", "rejected": ""}, {"prompt": "w1 w2", "chosen": "w3", "rejected": "w4"}],
        "sft": [{"messages": [*PROMPT, *answer("w4")]}],
    }
    for name, rows in sets.items():
        write_rows(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BURNISH_CACHE", str(folder / "cache"))


def train(method, rows, tmp_path, *more):
    named = ["--model_name_or_path", "model", "--dataset_name", f"{rows}.jsonl", "--output_dir", str(tmp_path / "out"), "--max_steps", "1"]
    return main([method, *named, "--batch_size", "2", "--save_strategy", "no", "--compute_dtype", "float32", *more])


COUNTED = {
    "chosen equal to rejected": ("dpo", "equal", (), "1 row with chosen equal to rejected, dropped (first: equal.jsonl line 7)."),
    "an empty completion": ("dpo", "texts", (), "1 row empty, or with an empty completion, dropped (first: texts.jsonl line 1)."),
    "a prompt longer than the limit": (
        "dpo", "long", ("--max_length", "40"), "1 row with a prompt of max_length=40 or more, dropped (first: long.jsonl line 7).",
    ),
    "the same for a reward model": ("reward", "equal", (), "1 row with chosen equal to rejected, dropped (first: equal.jsonl line 7)."),
}  # fmt: skip


@pytest.mark.parametrize("what", COUNTED)
def test_counted_and_said(what, tmp_path, capsys):
    method, rows, more, sentence = COUNTED[what]
    assert train(method, rows, tmp_path, *more) == 0
    assert sentence in " ".join(capsys.readouterr().out.split())


OF_SFT = "sft.jsonl line 1 has the columns 'messages', which are for supervised fine-tuning; give rows of "
REFUSED = {
    "all pairs equal": ("dpo", "all_equal", (), "can be trained on: 2 with chosen equal to rejected (first: all_equal.jsonl line 1)"),
    "a prompt longer than the limit, where that is an error": (
        "dpo", "long", ("--max_length", "40", "--truncation_mode", "error"),
        "tokens are more than max_length=40; raise it, or choose another truncation_mode.",
    ),
    "labels of one kind": (
        "kto", "labels", (), "Learning from labels needs some that are true and some that are false, but all 6 are true",
    ),
    "labels of one kind, bco": ("bco", "labels", (), "but all 6 are true; add rows with others."),
    "one prompt for all": ("kto", "one_prompt", (), "prompt"),
    "a reference with another vocabulary": (
        "dpo", "good", ("--ref_model_name_or_path", "other"),
        "The reference other and the policy read other tokens ('w4' is number 13 and number 14)",
    ),
    "rows of another method": ("dpo", "sft", (), OF_SFT),
    "rows without labels": ("kto", "sft", (), OF_SFT),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_one_sentence(what, tmp_path, capsys):
    method, rows, more, sentence = REFUSED[what]
    assert train(method, rows, tmp_path, *more) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert said.count("\n") == 0
    assert sentence in said


def test_a_training_from_the_command_line_and_its_reference_on_disk(tmp_path, capsys):
    assert train("dpo", "good", tmp_path, "--precompute_ref_log_probs") == 0
    first = " ".join(capsys.readouterr().out.split())
    assert "Reference log-probs of train: 6 examples, 6 of them computed now" in first
    assert "read back with transformers, its logits differ by 0" in first
    assert train("dpo", "good", tmp_path, "--precompute_ref_log_probs", "--overwrite_output_dir") == 0
    assert "6 examples, 0 of them computed now" in " ".join(capsys.readouterr().out.split())
