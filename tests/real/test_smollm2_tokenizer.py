"""The tokenizer of the folder `make smollm2` makes, against byte-pair encoding written out here.

The reference follows the published pre-tokenizer of the family (every digit alone, then GPT-2's pattern) and shares no code
with the `tokenizers` library, which the made tokenizer runs on.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import regex
from transformers import AutoTokenizer, PreTrainedTokenizerBase

GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
TEXTS = [
    "In 2024 it cost 1,234.50 dollars:\n\n1. that is  7 more than in 1999.",
    "  Leading spaces, a tab\tand\n\ntwo newlines.  ",
    "def f(x):\n    return x ** 2  # ½ of it: naïve café, 東京, 🙂",
    "I'm sure they'll say it isn't; we've been there. ٣٤٥ Ⅷ x² H2O 3rd",
    "12345 + 67890 = 80235",
    "CamelCase snake_case kebab-case https://example.org/a?b=1&c=22 \u200b\u00a0end",
    "",
    "\r\n\r\n 0 00 000\n",
]


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2)


def byte_alphabet() -> list[str]:
    """GPT-2 writes each byte as one visible character: printable ones as themselves, the others from 256 up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def encode_by_hand(text: str, vocabulary: dict[str, int], ranks: dict[tuple[str, str], int]) -> list[int]:
    alphabet, ids = byte_alphabet(), []
    for run in regex.findall(r"\p{N}|\P{N}+", text):
        for word in GPT2.findall(run):
            parts = [alphabet[byte] for byte in word.encode()]
            while len(parts) > 1:
                rank, at = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(zip(parts, parts[1:], strict=False)))
                if rank == len(ranks):
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            ids += [vocabulary[part] for part in parts]
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_as_written_out_by_hand(text: str, tokenizer: PreTrainedTokenizerBase, smollm2: Path) -> None:
    model = json.loads((smollm2 / "tokenizer.json").read_text())["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    ids = tokenizer(text).input_ids
    assert ids == encode_by_hand(text, model["vocab"], ranks)
    assert tokenizer.decode(ids) == text


def test_numbers_are_split_off_before_words_are(tokenizer: PreTrainedTokenizerBase) -> None:
    """Without digit splitting the last of several blanks goes with the number: ``["a", "Ċ", "Ċ", "1", "2"]``."""
    assert tokenizer.tokenize("a\n\n12  3") == ["a", "ĊĊ", "1", "2", "ĠĠ", "3"]


def test_special_tokens_and_template(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2, 2)
    assert tokenizer("<|im_start|>user\n").input_ids[0] == 1
    assert tokenizer("Hi").input_ids == tokenizer("Hi", add_special_tokens=False).input_ids
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
    )
