"""Processor seconds of whole steps of ours while one thing grows: random Llamas, one process for all points of a curve.

Specification: `{"curve": "sequence" | "model" | "prompt" | "group", "points": […], "threads": …,
"steps": measured steps of each point, after one to warm up, …}` and the sizes that the functions below read. Each point's number is the
median of its steps.
"""

from __future__ import annotations

import logging
import random
import tempfile
from statistics import median
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench.subjects.inside import Answer, clocks, serve, since
from bench.subjects.training import make_clock, share_of_vowels
from burnish import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from burnish.models.attention import Options, layout_of
from burnish.types import Node

Spec = dict[str, Any]
HEAD_DIM = 64


def llama(*, hidden: int, layers: int, vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers, "vocab_size": vocabulary}
    heads = {"num_attention_heads": hidden // HEAD_DIM, "num_key_value_heads": hidden // HEAD_DIM, "max_position_embeddings": 8192}
    return LlamaForCausalLM(LlamaConfig(**shape, **heads, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=None))


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """Of words that are their own numbers."""
    words = Tokenizer(WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0", eos_token="2")


def rows_of(count: int, tokens: int, vocabulary: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(100, vocabulary) for _ in range(tokens)] for _ in range(count)]


def seconds_of(trainer_class: Any, config_class: Any, spec: Spec, model: Any, options: Spec, **more: Any) -> float:
    """Of an optimizer step, the first aside."""
    clock, common = make_clock(), {"max_steps": 1 + spec["steps"], "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    with tempfile.TemporaryDirectory(prefix="bench-curve-") as folder:
        args = config_class(output_dir=folder, compute_dtype="float32", learning_rate=1e-6, logging_steps=1000, **common, **options)
        trainer_class(model=model, args=args, processing_class=tokenizer_of(spec["vocabulary"]), callbacks=[clock], **more).train()
    read = [cpu for cpu, _ in clock.readings]
    return median(after - before for before, after in zip(read, read[1:], strict=False))


def sft_seconds(spec: Spec, model: Any, *, length: int, tokens: int) -> float:
    """A step of `tokens` tokens in rows of `length`, in one micro-batch."""
    rows = [{"input_ids": ids} for ids in rows_of(tokens // length, length, model.config.vocab_size)]
    options = {"batch_size": len(rows), "max_length": None, "max_tokens_per_microbatch": tokens}
    return seconds_of(SFTTrainer, SFTConfig, spec, model, options, train_dataset=rows * (1 + spec["steps"]))


def grpo_seconds(spec: Spec, model: Any, *, prompt: int, group: int) -> float:
    """A step of `prompts` prompts of `prompt` tokens with `group` completions each, of `completion` tokens."""
    rows = [{"prompt": " ".join(map(str, ids))} for ids in rows_of(spec["prompts"], prompt, model.config.vocab_size)]
    options = {"batch_size": spec["prompts"], "num_generations": group, "max_completion_length": spec["completion"], "reward_workers": 1}
    return seconds_of(GRPOTrainer, GRPOConfig, spec, model, options, reward_funcs=share_of_vowels, train_dataset=rows)


def attention_seconds(nodes: list[Node], position: list[int], *, heads: int, layers: int, steps: int) -> float:
    """Of attention alone, forward and backward, of all layers over such a tree: through the code that the layers call."""
    shape = (1, heads, len(position), HEAD_DIM)
    layout, found = layout_of(tuple(nodes), torch.tensor(position)), []
    for _ in range(1 + steps):
        query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
        start = clocks()
        layout.attend(torch.nn.Identity(), query, key, value, Options(scaling=HEAD_DIM**-0.5)).backward(torch.ones(shape))
        found.append(since(start)[0])
    return layers * median(found[1:])


def sequence(spec: Spec) -> Answer:
    """A fixed number of tokens a step, in longer and longer rows: seconds of a thousand trained tokens, with attention and without."""
    model, tokens = llama(hidden=spec["hidden"], layers=spec["layers"], vocabulary=spec["vocabulary"]), spec["tokens"]
    sft_seconds(spec, model, length=128, tokens=512)  # what a process does once is no point's
    whole, attention = [], []
    for length in spec["points"]:
        nodes = [Node(start=i, end=i + length, parent=-1) for i in range(0, tokens, length)]
        position = [i % length for i in range(tokens)]
        heads = spec["hidden"] // HEAD_DIM
        attention.append(attention_seconds(nodes, position, heads=heads, layers=spec["layers"], steps=spec["steps"]))
        whole.append(sft_seconds(spec, model, length=length, tokens=tokens))
    thousands = tokens / 1000
    without = [(all_of - own) / thousands for all_of, own in zip(whole, attention, strict=True)]
    return {
        "measures": {"without_attention": without, "with_attention": [one / thousands for one in whole]},
        "facts": {"attention_s": attention},
    }


def model(spec: Spec) -> Answer:
    """The same rows through wider and wider models."""
    wide = [llama(hidden=hidden, layers=spec["layers"], vocabulary=spec["vocabulary"]) for hidden in spec["points"]]
    seconds = [sft_seconds(spec, one, length=spec["length"], tokens=spec["tokens"]) for one in wide]
    return {"measures": {"cpu_s": seconds}, "facts": {"parameters": [sum(p.numel() for p in one.parameters()) for one in wide]}}


def prompt(spec: Spec) -> Answer:
    """Longer and longer prompts: seconds of one more completion, from two sizes of group, and of a whole step of the smaller group."""
    policy, (few, many) = llama(hidden=spec["hidden"], layers=spec["layers"], vocabulary=spec["vocabulary"]), spec["groups"]
    steps = {group: [grpo_seconds(spec, policy, prompt=length, group=group) for length in spec["points"]] for group in (few, many)}
    extra = (many - few) * spec["prompts"]
    more = [(b - a) / extra for a, b in zip(steps[few], steps[many], strict=True)]
    return {"measures": {"extra_completion": more, "cpu_s": steps[few]}, "facts": {}}


def group(spec: Spec) -> Answer:
    """Larger and larger groups for the same prompts."""
    policy = llama(hidden=spec["hidden"], layers=spec["layers"], vocabulary=spec["vocabulary"])
    return {"measures": {"cpu_s": [grpo_seconds(spec, policy, prompt=spec["prompt"], group=one) for one in spec["points"]]}, "facts": {}}


CURVES = {"sequence": sequence, "model": model, "prompt": prompt, "group": group}


def run(spec: Spec) -> Answer:
    torch.set_num_threads(spec["threads"])
    logging.disable(logging.WARNING)
    return CURVES[spec["curve"]](spec)


if __name__ == "__main__":
    serve(run)
