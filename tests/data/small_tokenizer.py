"""A tokenizer small enough to be made in every test run: byte-level BPE of 400 tokens with ChatML's special ones."""

from __future__ import annotations

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = ["the quick brown fox jumps over the lazy dog", "question and answer: what is the sum of one and two? it is three"] * 8


def make_tokenizer(*, bos: bool = False, metaspace: bool = False, **options):
    """`bos`: the tokenizer puts `<s>` before every text. `metaspace`: it puts a space there too, as SentencePiece does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace() if metaspace else pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.Metaspace() if metaspace else decoders.ByteLevel()
    alphabet = sorted({c for text in CORPUS for c in text} | set("\nQA:5.")) if metaspace else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<eos>", "<|im_start|>", "<|im_end|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    defaults = {"bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": CHATML}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(defaults | options))
