"""A language model, a tokenizer and rows so small that a whole training takes about a second."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{i}" for i in range(80)]
SPECIAL = ["<unk>", "<s>", "<eos>", "<|im_start|>", "<|im_end|>"]
ROLES = ["system", "user", "assistant", "\n", " "]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """One token for each word w0 … w79 and each space or new line; ChatML."""
    vocabulary = {word: i for i, word in enumerate(SPECIAL + ROLES + WORDS)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Split(Regex("[ \n]"), "isolated")
    backend.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    defaults = {"unk_token": "<unk>", "eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"], "chat_template": CHATML}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**defaults, **options})


def tiny_llama(seed: int = 0, **options: Any) -> LlamaForCausalLM:
    shape: dict[str, Any] = {
        "vocab_size": len(SPECIAL + ROLES + WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**{**shape, **options}))


def save_tiny_model(folder: Path, seed: int = 0, **options: Any) -> Path:
    """The model and its tokenizer, as `from_pretrained` reads them."""
    tiny_llama(seed, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def chats(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations of one or two turns, of unequal lengths."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        turns = [(role, words(rng, rng.randint(1, 9))) for _ in range(rng.randint(1, 2)) for role in ("user", "assistant")]
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    return rows


def preferences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions with an answer that is chosen and one that is rejected, of unequal lengths."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = [{"role": "user", "content": words(rng, rng.randint(1, 9))}]
        chosen, rejected = ([{"role": "assistant", "content": words(rng, rng.randint(1, 9))}] for _ in range(2))
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def texts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [{"text": words(rng, rng.randint(2, 16))} for _ in range(count)]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
