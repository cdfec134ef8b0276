"""A recipe made small: a model of its kind, a few rows of its rows' format, short in every direction. `CHANGED` is all that may differ."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from burnish.cli.demo import as_prompts, write_jsonl
from burnish.config.yaml_file import dump, load
from burnish.demo import load_path, make_pairs, make_rows
from tests.models.families import tiny_model, tiny_scorer

ROOT = Path(__file__).resolve().parents[2]
PATHS = (
    "model_name_or_path",
    "dataset_name",
    "dataset_train_split",
    "dataset_test_split",
    "test_split_size",
    "eval_datasets",
    "output_dir",
)
SHORT = {"max_length": 64, "max_prompt_length": 64, "max_completion_length": 8, "batch_size": 2, "num_generations": 2}
"""Lengths and numbers, where a recipe has more. Its own epochs give way to `max_steps`."""
STEPS = {"max_steps": 2, "eval_steps": 2, "save_steps": 2}
SERVER = ("use_vllm", "vllm_server_base_url")
"""Without them the built-in sampler samples."""
REWARDS = ("reward_funcs", "reward_kwargs")
"""A reward model is a small one; `accuracy` is `numeric` where math-verify is not installed."""
CHANGED = {*PATHS, *SHORT, *STEPS, "num_train_epochs", *SERVER, *REWARDS, "dtype", "compute_dtype"}
Rows = list[dict[str, Any]]


def chats(n: int) -> Rows:
    return [{"messages": row["messages"]} for row in make_rows(n, seed=0, split="train")]


def chats_with_prompt(n: int) -> Rows:
    return [{"prompt": row["messages"][0]["content"], "prompt_id": str(i), **row} for i, row in enumerate(chats(n))]


def judged(n: int) -> Rows:
    """Whole conversations, and what each was scored."""
    pairs = make_pairs(n, seed=0, split="train")
    whole = [{name: pair["prompt"] + pair[name] for name in ("chosen", "rejected")} for pair in pairs]
    return [row | {"score_chosen": 8.5, "score_rejected": 8.0} for row in whole]


def labelled(n: int) -> Rows:
    pairs = make_pairs(n, seed=0, split="train")
    return [{"prompt": p["prompt"], "completion": p["rejected" if i % 2 else "chosen"], "label": i % 2 == 0} for i, p in enumerate(pairs)]


def questions(n: int) -> Rows:
    return as_prompts(make_rows(n, seed=0, split="train"))


ROWS: dict[str, Callable[[int], Rows]] = {
    "models/dialogues/train.jsonl": chats,
    "models/preferences/replies/train.jsonl": lambda n: make_pairs(n, seed=0, split="train"),
    "models/chain_sum/train.jsonl": questions,
    "trl-lib/Capybara": chats,
    "THUDM/LongAlign-10k": lambda n: [row | {"length": 9000} for row in chats(n)],
    "HuggingFaceH4/ultrachat_200k": chats_with_prompt,
    "trl-lib/ultrafeedback_binarized": judged,
    "trl-lib/kto-mix-14k": labelled,
    "trl-lib/DeepMath-103K": lambda n: [{"prompt": row["prompt"], "solution": f"${row['answer']}$"} for row in questions(n)],
    "trl-lib/ultrafeedback-prompt": lambda n: [{"prompt": row["prompt"]} for row in questions(n)],
}
"""What a recipe's `dataset_name` holds → rows of its format."""
FAMILIES = {"models/smollm2": "llama-tied", "Qwen/Qwen2.5": "qwen2"}
"""How a model's name begins → the family of `tests/models/families.py` that it belongs to."""


def save_models(folder: Path) -> None:
    """A small model of each family, and a reward model, all with the embedded tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(load_path())
    shape = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape |= {"max_position_embeddings": 256, "dtype": torch.float32}
    for family in FAMILIES.values():
        tiny_model(family, **shape).save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    tiny_scorer("qwen2", **shape, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder / "judge")
    tokenizer.save_pretrained(folder / "judge")


def make_small(path: Path, folder: Path) -> Path:
    """The recipe `path` as a configuration in `folder`, which holds the models of `save_models`, with its rows beside it."""
    options, _ = load(path)
    family = next(family for name, family in FAMILIES.items() if options["model_name_or_path"].startswith(name))
    rows = write_rows(folder / f"{path.parent.name}-{path.stem}.jsonl", ROWS[options["dataset_name"]](8))
    small = {name: value for name, value in options.items() if name not in (*PATHS, *SERVER, "num_train_epochs")}
    small |= {"model_name_or_path": str(folder / family), "dataset_name": str(rows), "dtype": "float32", "compute_dtype": "float32"}
    small |= {name: min(value, SHORT[name]) for name, value in small.items() if name in SHORT}
    small |= {"max_steps": 2, "batch_size": 2, "output_dir": str(folder / "runs" / path.parent.name / path.stem)}
    small |= {name: STEPS[name] for name in STEPS if name in small}
    if small.get("eval_strategy") == "steps":
        small["eval_datasets"] = {"test": str(rows)}
    small |= _rewards(small.get("reward_funcs"), folder)
    written = folder / f"{path.parent.name}-{path.stem}.yaml"
    written.write_text(dump(small), encoding="utf-8")
    return written


def _rewards(named: list[str] | None, folder: Path) -> dict[str, Any]:
    if named is None:
        return {}
    if named == ["accuracy"] and importlib.util.find_spec("math_verify") is None:
        return {"reward_funcs": ["numeric"], "reward_kwargs": {"numeric": {"answer": "solution"}}}
    return {"reward_funcs": [str(folder / "judge") if name.startswith("./") else name for name in named]}


def write_rows(path: Path, rows: Rows) -> Path:
    write_jsonl(path, rows)
    return path
