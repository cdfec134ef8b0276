"""Small tokenizers of every kind that chat templates meet, and a place to find templates of real families."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

MARKERS = re.compile(
    r"<\|[A-Za-z0-9_\"]+\|?>|<[a-z_]+\|>|<｜[^｜]*｜>|<(?:start|end)_of_(?:turn|utterance)>|\[gMASK\]|<sop>|</?think>|</?tool_call>|</s>|<s>"
)
WORDS = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
NOT_SPECIAL = re.compile(r"</?think>|</?tool_call>|<｜(?:User|Assistant)｜>")
CORPUS = ["hello there\n\nworld\n", "Yo, yo. the answer is 42\n\n", "assistant user system\n"] * 20


def template_folder() -> Path | None:
    """Where real families' templates are: $BURNISH_CHAT_TEMPLATES, or an installed `trl`."""
    given = os.environ.get("BURNISH_CHAT_TEMPLATES")
    if given:
        return Path(given)
    found = importlib.util.find_spec("trl")
    folder = Path(found.origin).parent / "chat_templates" if found and found.origin else None
    return folder if folder and folder.is_dir() else None


def wrap(
    backend: Tokenizer, template: str | None, special: Sequence[str] = (), *, eos: str | None, bos: str | None = None
) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    tokenizer.add_tokens([token for token in special if NOT_SPECIAL.fullmatch(token)])
    tokenizer.add_tokens([token for token in special if not NOT_SPECIAL.fullmatch(token)], special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def byte_level(
    template: str | None, special: Sequence[str] = (), *, eos: str | None, bos: str | None = None, trim: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE as in Llama 3 and Qwen. It merges newlines, so a boundary between two of them falls inside a token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORDS, behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    tokenizer = wrap(backend, template, special, eos=eos, bos=bos)
    if trim:  # offsets leave out a token's whitespace
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def sentencepiece_like(template: str | None, special: Sequence[str] = (), *, eos: str, bos: str | None = None) -> PreTrainedTokenizerFast:
    """Metaspace BPE with byte fallback and a dummy prefix, as in Llama 2, Mistral, Gemma."""
    alphabet = sorted({c for text in CORPUS for c in text} | set("▁<|>/[]INST_"))
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=500, initial_alphabet=alphabet, special_tokens=["<unk>", *(f"<0x{i:02X}>" for i in range(256))], show_progress=False
        ),
    )
    return wrap(backend, template, special, eos=eos, bos=bos)


def wordpiece(template: str | None, special: Sequence[str] = (), *, eos: str) -> PreTrainedTokenizerFast:
    """WordPiece as in BERT: lower-cases, drops whitespace."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False))
    return wrap(backend, template, special, eos=eos)
