"""Word by word gives the ids of the whole text, on hostile text, for every known way to cut text in words."""

import random

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from burnish.data import words as words_module
from burnish.data.encode import _cut
from burnish.data.words import PATTERNS, SPACES, WordEncoder

SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>"]
ALPHABET = [
    *["a", "b", "the", "The", "THE", "don", "'s", "'S", "'ll", "1", "23", "4567", ".", ",", "!?", "/", "(", "_", "-", "é", "e\u0301"],
    *["ß", "Σ", "東京", "ا", "🙂", "👩\u200d💻", "\u0301", "\u200b", "ǆ", "ʰ", "½", "٣", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000"],
    *["\u2028", "\x1f", "<|im_start|>", "<|im_end|>", "<s>", "<|im_", "|>", "<"],
]
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def split(pattern):
    isolated = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([isolated, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS = {
    "gpt-2": BYTE_LEVEL,
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]),
    **{f"pattern {i}": split(pattern) for i, pattern in enumerate(sorted(PATTERNS))},
}


def text(rng):
    """Half of the pieces are followed by spaces, so that cuts stand everywhere."""
    return "".join(rng.choice(ALPHABET) + " " * rng.choice((0, 0, 0, 1, 1, 1, 2, 3)) for _ in range(rng.randint(0, 30)))


def make(pre_tokenizer, normalizer=None, added=SPECIAL, **options):
    backend = Tokenizer(models.BPE(**options))
    backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    rng = random.Random(1)
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator([text(rng) for _ in range(500)], trainer)
    backend.add_special_tokens(list(added))
    return backend


def whole(backend, texts):
    return [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["", "NFC"])
@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_word_by_word_is_the_whole(name, normalizer):
    backend = make(PRE_TOKENIZERS[name], normalizer)
    words = WordEncoder.for_backend(backend)
    assert words is not None
    rng = random.Random(2)
    for _ in range(20):
        texts = [text(rng) for _ in range(100)]
        found = words.encode(texts)
        assert found is not None
        assert [ids.tolist() for ids in found] == whole(backend, texts)
        assert all(ids.dtype == np.int32 for ids in found)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_cuts_within_words_are_those_of_the_whole(name):
    backend = make(PRE_TOKENIZERS[name])
    words = WordEncoder.for_backend(backend)
    rng = random.Random(3)
    for _ in range(10):
        texts = [text(rng) for _ in range(100)]
        places = [sorted(rng.choices(range(len(row) + 1), k=rng.randint(0, 6))) for row in texts]
        encodings = backend.encode_batch(texts, add_special_tokens=False)
        expected = [(e.ids, [_cut(e, at, len(row)) for at in of_row]) for e, row, of_row in zip(encodings, texts, places, strict=True)]
        found = words.encode_with_cuts(texts, places, _cut)
        assert [(ids.tolist(), cuts) for ids, cuts in found] == expected


@pytest.mark.parametrize("space", SPACES)
def test_no_white_space_is_cut_off_from_what_follows(space):
    backend = make(PRE_TOKENIZERS["gpt-2"])
    texts = [f"the{space} the", f"the {space} the", f"{space} {space}", f" {space}a", f"a{space}{space} b"]
    assert [ids.tolist() for ids in WordEncoder.for_backend(backend).encode(texts)] == whole(backend, texts)


@pytest.mark.parametrize(
    "backend",
    [
        lambda: make(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda: make(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        lambda: make(pre_tokenizers.Metaspace()),
        lambda: make(split(r"\w+ ?|\s")),
        lambda: make(pre_tokenizers.Sequence([BYTE_LEVEL, pre_tokenizers.Whitespace()])),
        lambda: make(BYTE_LEVEL, normalizers.Replace("a ", "b")),
        lambda: make(BYTE_LEVEL, normalizers.Lowercase()),
        lambda: make(BYTE_LEVEL, dropout=0.1),
    ],
)
def test_what_is_not_known_to_be_cut_at_spaces_is_left_alone(backend):
    assert WordEncoder.for_backend(backend()) is None


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("<x y>"),
        AddedToken("<x>", lstrip=True),
        AddedToken("<x>", rstrip=True),
        AddedToken("<x>", single_word=True),
        AddedToken("<|im_start|><|im"),
        AddedToken("s><|"),
        AddedToken("im_end"),
    ],
    ids=str,
)
def test_texts_with_an_added_token_that_depends_on_its_surroundings_are_encoded_whole(token):
    words = WordEncoder.for_backend(make(BYTE_LEVEL, added=[*SPECIAL, token]))
    assert words.encode(["a b"]) is not None
    assert words.encode(["a", f"<s><|im_start|><|im_end|> {token.content} b"]) is None
    assert words.encode([f"<|im_start|> <|im_end|> {token.content} <s>"]) is None


def test_texts_with_the_marks_used_here_are_encoded_whole():
    words = WordEncoder.for_backend(make(BYTE_LEVEL))
    assert words.encode(["a", "b\x00c"]) is words.encode(["a\x01b"]) is None


def test_where_a_first_text_differs_every_text_is_encoded_whole():
    words = WordEncoder.for_backend(make(BYTE_LEVEL))
    words._ids[" the"] = b""
    assert words.encode(["a the"]) is words.encode(["a"]) is words.encode_with_cuts(["a"], [[0]], _cut) is None


def test_words_are_forgotten_when_they_are_too_many(monkeypatch):
    backend = make(BYTE_LEVEL)
    words = WordEncoder.for_backend(backend)
    monkeypatch.setattr(words_module, "MEMORY", 10)
    for texts in (["the one", "the two three"], ["one the", ""], ["two"]):
        assert [ids.tolist() for ids in words.encode(texts)] == whole(backend, texts)
    assert set(words._ids) == {words_module.ROW, "one", " the", "", "two"}
