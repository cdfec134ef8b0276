"""Sampling: the built-in sampler, transformers' `generate` and, where its environment is there, vLLM.

`generate` is given all prompts at once, left-padded, and as many samples of each. In bfloat16 it and vLLM hold their weights so; ours
computes in it and holds float32, as it does while it trains.
"""

from __future__ import annotations

from pathlib import Path

from bench.harness import Case, Options, Side
from bench.processes import usable

TITLE = "Sampling"
QUESTIONS = (
    "What is 17 + 25? Think step by step.",
    "Write a haiku about rivers and stones, and explain it.",
    "List three fruits.",
    "Explain in simple words how a bicycle stays upright while it is moving.",
    "Who wrote Hamlet, and when?",
    "Translate 'good morning, how are you?' to French, German and Spanish.",
    "Give me a short recipe for pancakes for four people.",
    "Why is the sky blue?",
    "Is 91 a prime number?",
    "Write one sentence that contains the words lamp, ocean and courage.",
    "What are the main differences between a list and a tuple in Python? Show an example of each of them.",
    "Name the planets of the solar system in order of their distance from the sun.",
    "Summarise the story of Romeo and Juliet in two sentences.",
    "A train travels 60 miles in 45 minutes. What is its average speed in miles per hour?",
    "Say hello.",
    "Write an email to my landlord that asks, politely, for the broken heating to be repaired before the weekend.",
)


def cases(options: Options) -> list[Case]:
    questions, samples, longest = (QUESTIONS[:8], 4, 48) if options.short else (QUESTIONS, 8, 128)
    prompts = token_ids(options.model, questions)
    spec = {
        "model": str(options.model),
        "prompts": prompts,
        "samples": samples,
        "max_tokens": longest,
        "generate_prompts": len(prompts),
        "dtype": options.compute_dtype,
        "threads": options.threads,
        "seed": 1,
    }
    sides = [
        Side(name=name, subject="sampling", spec=spec | {"side": side})
        for name, side in (("ours", "ours"), ("transformers' generate", "generate"))
    ]
    if usable(options.vllm_python):
        sides.append(Side(name="vLLM", subject="sampling", spec=spec | {"side": "vllm"}, python=options.vllm_python.absolute()))
    about = f"{len(prompts)} prompts, {samples} samples of each, of at most {longest} tokens; temperature 1."
    shown = ("cpu_s_per_1000", "wall_s_per_1000", "peak_bytes")
    return [Case(name="sampler", title="sampling", about=about, sides=sides, shown=shown)]


def token_ids(model: Path, questions: tuple[str, ...]) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [tokenizer.apply_chat_template([{"role": "user", "content": one}], add_generation_prompt=True)["input_ids"] for one in questions]
