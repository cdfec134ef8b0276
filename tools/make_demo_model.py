"""Make the embedded demo model: a tokenizer, and a small Llama pre-trained on generated text, from nothing.

    OMP_NUM_THREADS=1 python tools/make_demo_model.py

Ten minutes on one core. The text holds equations ("47+38=77+8=85"), equations that stop at a wrong digit ("47+38=77+9 no")
and short sentences with numbers. It holds no question, no chat turn and no fact of the demo's test split: answering
questions is left to fine-tuning. The wrong digits teach the model to check, which reward models need.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from burnish.demo import NAMES, THINGS, Split, difference_steps, draw_fact, load_path, sum_steps

BOUNDARY, TURN_START, TURN_END, PAD = SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STEPS = 2000
ROWS, ROW = 16, 128
WIDTH = 128
SENTENCES = (
    "{name} has {x} {things}. {other} has {y} {stuff}. So {name} has {x} {things} and {other} has {y} {stuff}.",
    "{name} gave {x} {things} to {other}. Now {other} has the {x} {things}, and {name} has {y} {stuff}.",
    "{name} had {x} {things} and gets {y} more. The numbers are {x} and {y}.",
    "The difference between many {things} and more {stuff} is what {name} would add to the sum from {other}.",
    "How many {things} are left does not matter to {name}. What is left away from {other} is now {x}, minus or plus {y}.",
    "{other} would subtract {x}. {name} would add {y} and {x}. The user and the assistant have {y} {things}.",
)


Span = tuple[str, bool]
"""Text, and whether its tokens are targets: operands are drawn at random, so predicting them is noise."""


def equation(rng: random.Random, split: Split = "train") -> list[Span]:
    """``47+38=77+8=85``; what stands left of the first "=" is not a target."""
    a, b = draw_fact(rng, split)
    left, _, steps = (sum_steps(a, b) if rng.random() < 0.5 else difference_steps(a + b, b)).partition("=")
    return [(left + "=", False), (steps + "\n", True)]


def slip(rng: random.Random, split: Split = "train") -> list[Span]:
    """``47+38=77+9 no``: an equation that stops at a wrong digit. The digit is not a target, the verdict is."""
    left, (steps, _) = equation(rng, split)
    at = rng.choice([i for i, character in enumerate(steps) if character.isdigit()])
    wrong = (int(steps[at]) + rng.choice((1, 9, rng.randint(1, 9)))) % 10
    return [left, (steps[:at], True), (str(wrong), False), (" no\n", True)]


def sentence(rng: random.Random) -> list[Span]:
    name, other = rng.sample(NAMES, 2)
    things, stuff = rng.sample(THINGS, 2)
    x, y = rng.randint(0, 198), rng.randint(0, 99)
    return [(rng.choice(SENTENCES).format(name=name, other=other, things=things, stuff=stuff, x=x, y=y) + "\n", True)]


def document(rng: random.Random) -> list[Span]:
    """A few lines: equations with slips among them, or sentences."""
    kinds = (sentence,) if rng.random() < 0.1 else (equation, equation, slip)
    lines = rng.randint(2, 4) if kinds == (sentence,) else rng.randint(8, 16)
    return [(BOUNDARY, False)] + [span for _ in range(lines) for span in rng.choice(kinds)(rng)]


def make_tokenizer(rng: random.Random) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that no text is unknown; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, special_tokens=list(SPECIALS), show_progress=False)
    tokenizer.train_from_iterator([sentence(rng)[0][0] for _ in range(2000)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOUNDARY,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def batches(rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Packed rows of token ids and targets, each ``[ROWS, ROW]``; what is not a target is -100."""
    ids: list[int] = []
    targets: list[int] = []
    size = ROWS * ROW
    while True:
        while len(ids) < size:
            spans = [span for _ in range(64) for span in document(rng)]
            for tokens, (_, trained) in zip(tokenizer([text for text, _ in spans])["input_ids"], spans, strict=True):
                ids += tokens
                targets += tokens if trained else [-100] * len(tokens)
        yield torch.tensor(ids[:size]).view(ROWS, ROW), torch.tensor(targets[:size]).view(ROWS, ROW)
        ids, targets = ids[size:], targets[size:]


@torch.no_grad()
def probe(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, kind: Callable[..., list[Span]], split: Split) -> float:
    """The share of 256 lines on facts of ``split`` whose last span (steps or verdict) is the model's first choice throughout."""
    rng = random.Random("probe")
    right = 0
    for _ in range(256):
        *context, last = [text for text, _ in kind(rng, split)]
        n = len(tokenizer(last)["input_ids"])
        ids = tokenizer(BOUNDARY + "".join(context) + last, return_tensors="pt")["input_ids"]
        right += bool((model(ids).logits[0, -n - 1 : -1].argmax(-1) == ids[0, -n:]).all())
    return right / 256


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=6,
            intermediate_size=3 * WIDTH,
            num_attention_heads=WIDTH // 32,
            num_key_value_heads=WIDTH // 32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=WIDTH**-0.5,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * step / STEPS)))
    for step, (ids, targets) in enumerate(islice(batches(rng, tokenizer), STEPS), start=1):
        logits = model(input_ids=ids, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 250 == 0:
            pairs = [(kind, split) for kind in (equation, slip) for split in ("train", "test")]
            right = (f"{kind.__name__} {split} {probe(model, tokenizer, kind, split):.1%}" for kind, split in pairs)
            print(f"step {step}", f"loss {loss.item():.4f}", *right, f"{time.process_time():.0f} CPU s", sep="  ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=load_path(), help="Folder to write to.")
    output = parser.parse_args().output
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = make_tokenizer(rng)
    model = make_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens in the vocabulary")
    pretrain(model, tokenizer, rng)
    model.to(torch.float16).save_pretrained(output)
    tokenizer.save_pretrained(output)


if __name__ == "__main__":
    main()
