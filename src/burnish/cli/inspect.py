"""`burnish inspect METHOD`: what a training would see, and nothing is trained. The model's weights are not loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import rich.console
import torch

from burnish.cli.sets import open_sets
from burnish.cli.train import quiet_bars
from burnish.config.data import DataConfig
from burnish.config.model import ModelConfig
from burnish.config.rows import RowsConfig
from burnish.config.train import TrainConfig
from burnish.data.dataset import Dataset, JoinedExamples, formats_for, prepare_all
from burnish.data.formats import Format
from burnish.data.prepare import PrepareOptions
from burnish.data.rows import ListRows, Rows
from burnish.models.load import DTYPES, choose_compute_dtype, load_tokenizer, stop_token_ids
from burnish.models.memory import ROW, Placement, estimate_memory, microbatch_tokens, skeleton_policy
from burnish.report.console import counted
from burnish.report.tokens import length_histogram, show_example

Prepare = Callable[[Any, Format], PrepareOptions]
"""A method's `prepare_options`: its configuration and the format of a source → how its rows become examples."""


def inspect_rows(prepare_options: Prepare, model: ModelConfig, data: DataConfig, args: Any, *, rows: int = 3) -> int:
    """Shows the first rows as tokens, what becomes of all rows, their lengths, and the memory a run would take.

    `args` is a method's configuration, a `RowsConfig` and a `TrainConfig`.
    """
    quiet_bars()
    console = rich.console.Console()
    say: Callable[[str], None] = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)  # noqa: E731
    tokenizer = load_tokenizer(model, chat_template_path=args.chat_template_path, eos_token=args.eos_token)
    train, held_out = open_sets(data, args.seed)
    sets = {"train": train} | ({} if held_out is None else held_out if isinstance(held_out, dict) else {"eval": held_out})
    for name, dataset in sets.items():
        whole = dataset if isinstance(dataset, Dataset) else Dataset(sources=(dataset,))
        examples = _prepare(whole, tokenizer, args, lambda one: replace(prepare_options(args, one), stop_token_ids=stop_token_ids(model)))
        say(f"{name}:")
        for part in examples.parts:
            say(f"  {part.report}")
        if name == "train":
            for i in range(min(rows, len(examples))):
                say("")
                show_example(examples[i], tokenizer, console)
            say("")
            say(length_histogram(examples.lengths.tolist(), args.max_length))
            say(_plan(examples, args))
    say(_memory(model, args, args.max_length or ROW))
    return 0


def _prepare(dataset: Dataset, tokenizer: Any, args: RowsConfig, options_of: Callable[[Format], PrepareOptions]) -> JoinedExamples:
    """A stream is looked at by its first rows."""
    heads = [rows if isinstance(rows, Rows) else ListRows(rows.head(1000), f"the first rows of {rows.name}") for rows in dataset.sources]
    dataset = Dataset(sources=tuple(heads))
    return prepare_all(
        dataset, tokenizer, [options_of(one) for one in formats_for(args, dataset)], args.dataset_cache_dir, args.dataset_num_proc
    )


def _plan(examples: JoinedExamples, args: TrainConfig) -> str:
    steps = args.max_steps if args.max_steps > 0 else -(-len(examples) // args.batch_size) * args.num_train_epochs
    tokens = float(examples.lengths.mean()) * args.batch_size
    size = counted(args.batch_size, "example")
    return f"{counted(len(examples), 'example')}; {counted(math.ceil(steps), 'step')} of {size}, about {tokens:,.0f} tokens each."


def _memory(model: ModelConfig, args: TrainConfig, row: int) -> str:
    if model.load_in_4bit or model.load_in_8bit:
        return "Memory: not estimated for quantized weights."
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compute, why = choose_compute_dtype(args.compute_dtype, device, DTYPES.get(model.dtype, torch.float32))
    estimate = estimate_memory(skeleton_policy(model, args, compute, args.model_kind), args, Placement(device=device.type), row=row)
    tokens = max(args.max_tokens_per_microbatch or microbatch_tokens(estimate, device), row)
    dtype = str(compute).removeprefix("torch.")
    return f"Memory on {device}: {estimate.describe(tokens)} with {tokens:,} tokens in a micro-batch; compute in {dtype}, {why}."
