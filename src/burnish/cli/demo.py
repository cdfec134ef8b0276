"""`burnish demo`: the embedded model learns to answer questions, is scored before and after, and is saved."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from burnish.config.sft import SFTConfig
from burnish.demo import load_path, make_rows, score
from burnish.methods.sft import SFTTrainer

Rows = Sequence[Mapping[str, Any]]

FOLDER = Path("runs/demo")
INTRODUCTION = """\
A model of 1.3 million parameters comes with Burnish. It has read equations such as 47+38=77+8=85 and short sentences, and
never a question. Now it learns to answer questions from 9,000 examples. None of the held-out sums and differences was in
anything it reads; half of the held-out questions are asked in forms that no example shows.
"""
NEXT = """
The model and its metrics.jsonl are in {folder}; all of this took {seconds:.0f} seconds. To try next:
  burnish inspect sft --model_name_or_path {folder} --dataset_name {folder}/new.jsonl --assistant_only_loss
  burnish sft --model_name_or_path {folder} --dataset_name {folder}/train.jsonl --assistant_only_loss --output_dir runs/mine
  burnish sft --help"""


def run() -> int:
    """Fine-tunes for about a minute on two cores, into `runs/demo`; returns 0."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # threads that wait for each other gain a model this small little, and cost it much where other programs use the cores
    torch.set_num_threads(1)
    begun = time.monotonic()
    print(INTRODUCTION)
    train = make_rows(9000, seed=0, split="train")
    held_out = {forms: make_rows(100, seed=0, split="test", forms=forms) for forms in ("shown", "new")}
    for name, rows in {"train": train, **held_out}.items():
        write_jsonl(FOLDER / f"{name}.jsonl", rows)
    before = {forms: answer(load_path(), rows) for forms, rows in held_out.items()}
    fine_tune(train, held_out["shown"])
    after = {forms: answer(FOLDER, rows) for forms, rows in held_out.items()}

    print("\nHeld-out questions answered right  before   after")
    for forms, rows in held_out.items():
        name = {"shown": "asked in the forms it was shown", "new": "asked in new forms"}[forms]
        print(f"  {name:32}{share_right(before[forms], rows):7.0%} {share_right(after[forms], rows):7.0%}")
    print()
    for forms, n in (("shown", 3), ("new", 2)):
        for row, said in zip(held_out[forms][:n], after[forms], strict=False):
            verdict = "right" if score(said, row) else f"wrong, it is {row['answer']}"
            print(f"  {row['messages'][0]['content']}  →  {said}  ({verdict})")
    print(NEXT.format(folder=FOLDER, seconds=time.monotonic() - begun))
    return 0


def fine_tune(train: Rows, held_out: Rows) -> None:
    """From the embedded model to the one in `FOLDER`."""
    args = SFTConfig(
        output_dir=str(FOLDER),
        overwrite_output_dir=True,
        save_strategy="no",
        assistant_only_loss=True,
        batch_size=48,
        max_steps=180,
        learning_rate=2e-3,
        warmup_steps=10,
        compute_dtype="float32",
        eval_strategy="steps",
        eval_steps=30,
        logging_steps=10,
    )
    trainer = SFTTrainer(str(load_path()), args, train_dataset=train, eval_dataset=held_out)
    trainer.train()
    trainer.save_model()


@torch.no_grad()
def answer(model_path: Path, rows: Rows) -> list[str]:
    """Greedy answers to the rows' questions, by transformers alone: what is scored is what was saved."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    questions = [tokenizer.apply_chat_template(row["messages"][:1], tokenize=False, add_generation_prompt=True) for row in rows]
    prompts = tokenizer(questions, padding=True, return_tensors="pt", add_special_tokens=False)
    tokens = model.generate(**prompts, max_new_tokens=24, do_sample=False)
    return tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)


def share_right(answers: Iterable[str], rows: Rows) -> float:
    return sum(map(score, answers, rows)) / len(rows)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
