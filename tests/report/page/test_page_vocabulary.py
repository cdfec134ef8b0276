"""What tokens say, from tokenizer.json alone: the same as the tokenizers library decodes."""

import json

import huggingface_hub
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from burnish.report.page.vocabulary import find_vocabulary

TEXT = "Straße, 東京 and\n\ttabs: 1 + 1 = 2, twice  over."


def trained(folder, kind):
    """A tokenizer of few tokens, so that most characters are several."""
    if kind == "byte-level":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(prepend_scheme="never"), decoders.Metaspace(prepend_scheme="never")
        alphabet = sorted(set(TEXT))
    made.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>"]))
    made.save(str(folder / "tokenizer.json"))
    return made


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
def test_a_row_of_tokens_is_its_text(tmp_path, kind):
    made = trained(tmp_path, kind)
    vocabulary, _ = find_vocabulary(tmp_path, "")
    assert vocabulary is not None
    ids = made.encode(TEXT).ids
    assert "".join(vocabulary.tokens[one] for one in ids).encode("latin-1").decode() == TEXT
    assert vocabulary.special == {0}
    assert vocabulary.of({0})["tokens"] == {"0": "<s>"}


def test_bytes_and_words_of_other_kinds(tmp_path):
    def read(decoder, vocab):
        (tmp_path / "tokenizer.json").write_text(json.dumps({"decoder": {"type": decoder}, "model": {"vocab": vocab}}))
        found = find_vocabulary(tmp_path, "")[0]
        assert found is not None
        return dict(found.tokens)

    assert read("ByteFallback", [["<0xE4>", 0.0], ["▁a", -1.0]]) == {0: "\xe4", 1: " a"}
    assert read("WordPiece", {"wo": 0, "##rd": 1}) == {0: " wo", 1: "rd"}


def test_words_begin_with_a_space_where_only_a_normalizer_of_the_decoder_says_so(tmp_path):
    """As in Llama 2's: the ▁ is what its decoder replaces, and JSON may write it as \\u2581."""
    content = {"decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, "model": {"vocab": {"▁a": 0, "<0x0A>": 1}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    found, _ = find_vocabulary(tmp_path, "")
    assert found is not None
    assert dict(found.tokens) == {0: " a", 1: "\n"}


@pytest.mark.parametrize(("model", "asked"), [("gpt2", True), ("org/model", True), ("a--b", True), ("./model", False), ("../model", False)])
def test_the_cache_is_asked_for_what_can_be_in_it(tmp_path, monkeypatch, model, asked):
    """What it refuses as a name, it has not."""
    names = []

    def ask(name, file):
        names.append(name)
        if "--" in name:
            raise huggingface_hub.errors.HFValidationError(name)
        (tmp_path / file).write_text(json.dumps({"decoder": None, "model": {"vocab": {"a": 0}}}))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", ask)
    found, fault = find_vocabulary(tmp_path / "run", model)
    assert names == [model] * asked
    assert (found is not None) == (asked and model != "a--b")
    assert found is not None or fault.endswith(f"there is no tokenizer.json in the run's folder nor in {model}.")


def test_where_it_is_looked_for(tmp_path):
    run, model = tmp_path / "run", tmp_path / "model"
    for folder in (run / "checkpoint-2", run / "checkpoint-10", model):
        folder.mkdir(parents=True)
    assert find_vocabulary(run, str(model)) == (
        None,
        f"Tokens cannot be shown one by one: there is no tokenizer.json in the run's folder nor in {model}.",
    )
    for folder in (model, run / "checkpoint-2", run / "checkpoint-10", run):
        (folder / "tokenizer.json").write_text(json.dumps({"decoder": None, "model": {"vocab": {"a": 0}}}))
        found = find_vocabulary(run, str(model))[0]
        assert found is not None
        assert found.path == str(folder / "tokenizer.json"), "the newer checkpoint before the older one, and the run's own before all"


def test_one_that_cannot_be_read(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"decoder": null, "model": {}}')
    found, fault = find_vocabulary(tmp_path, "")
    assert found is None
    assert "cannot be read (KeyError: 'vocab')" in fault
