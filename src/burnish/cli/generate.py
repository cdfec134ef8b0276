"""`burnish generate`: completions of a file of prompts, from a model and the built-in sampler."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from burnish.cli.train import quiet_bars
from burnish.config.generate import GenerateConfig
from burnish.config.model import ModelConfig
from burnish.data.rows import Rows
from burnish.models.load import choose_compute_dtype, load_model, load_tokenizer, stop_token_ids
from burnish.models.memory import give_back_freed_blocks
from burnish.models.policy import Policy
from burnish.models.probe import probe
from burnish.rollout.local import LocalSampler, sampling_of
from burnish.rollout.prompts import PromptRenderer, prompt_of
from burnish.rollout.sampler import Completion, Request


def generate(model: ModelConfig, args: GenerateConfig, rows: Rows) -> int:
    """Writes a line for each row, in their order, as soon as its completions have ended and those before it are written."""
    quiet_bars()
    tokenizer = load_tokenizer(model, chat_template_path=args.chat_template_path, eos_token=args.eos_token)
    stops = tuple(sorted({*stop_token_ids(model), tokenizer.eos_token_id} - {None}))
    prompts = PromptRenderer(tokenizer, stops)(rows)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        give_back_freed_blocks()
    loaded = load_model(model, device)
    compute, why = choose_compute_dtype(model.compute_dtype, device, next(loaded.parameters()).dtype)
    policy = Policy(loaded, compute_dtype=compute).eval()
    found = probe(policy, wanted=model.attn_implementation)
    sampler = LocalSampler(policy, text=tokenizer.decode, memory=args.sampler_memory)
    said = f"{type(policy.causal_model).__name__}: compute {str(compute).removeprefix('torch.')} ({why}), on {device}."
    for message in (*model.notes, *args.notes, said, *found.messages, *sampler.messages):
        print(message, file=sys.stderr)
    requests = [
        Request(prompt_id=str(i), sample=sample, token_ids=ids, max_tokens=args.max_completion_length)
        for i, ids in enumerate(prompts)
        for sample in range(args.num_generations)
    ]
    begun, path = time.monotonic(), Path(args.output_file)
    with path.open("w", encoding="utf-8") as file:
        completions = sampler.sample(requests, sampling_of(args, stops, args.seed))
        tokens = _write(file, completions, rows, tokenizer, args.num_generations)
    seconds = time.monotonic() - begun
    print(f"{len(requests):,} completions of {len(rows):,} prompts, {tokens:,} tokens at {tokens / seconds:,.0f} a second, are in {path}.")
    return 0


def _write(file: TextIO, completions: Iterator[Completion], rows: Rows, tokenizer: Any, each: int) -> int:
    """Returns how many tokens were sampled."""
    waiting: dict[int, list[Completion]] = {}
    written = tokens = 0
    for one in completions:
        tokens += len(one.token_ids)
        waiting.setdefault(int(one.request.prompt_id), []).append(one)
        while len(waiting.get(written, ())) == each:
            line = _line(rows[written], rows.where(written), waiting.pop(written), tokenizer)
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            file.flush()
            written += 1
    return tokens


def _line(row: Mapping[str, Any], where: str, completions: Sequence[Completion], tokenizer: Any) -> dict[str, Any]:
    ordered = sorted(completions, key=lambda one: one.request.sample)
    return {
        "prompt": prompt_of(row, where),
        "completions": [
            {
                "text": tokenizer.decode(one.token_ids.tolist(), skip_special_tokens=True),
                "token_ids": one.token_ids.tolist(),
                "finish_reason": one.finish_reason,
                "logp": float(one.logp.sum(dtype=float)),
            }
            for one in ordered
        ],
    }
