"""The embedded model learns to use a calculator: `make calculator`.

    python bench/calculator.py

It is shown 3,000 times, in the forms of questions that the demo shows, how an answer is had in two turns: an expression such as 47+38,
which is answered by its value, and then the answer. Then it is asked in new forms as well, its expressions are answered by an environment,
and a rollout whose last turn is the right answer is worth 1. Of the 200 held-out questions of each kind, those that are answered right are
counted before and after, drawn greedily. Nothing between the model's turns is trained; the last lines show it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from burnish import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from burnish.cli.demo import SMALL, as_prompts
from burnish.cli.inspect_samples import inspect_samples
from burnish.config.inspect import InspectSamplesConfig
from burnish.demo import load_path, make_rows
from burnish.rollout.environments import Environment

FOLDER = Path("runs/calculator")
EXPRESSION = re.compile(r"(\d+)([+-])(\d+)")


class Calculator(Environment):
    """Answers an expression by its value, once; what is said then is the answer."""

    def reset(self, row: Mapping[str, Any]) -> None:
        self.answer, self.asked = row["answer"], False

    def step(self, message: Mapping[str, Any]) -> tuple[str | None, float, bool]:
        said = message["content"].strip()
        if not self.asked and (found := EXPRESSION.fullmatch(said)):
            self.asked = True
            return str(int(found[1]) + int(found[3]) * (1 if found[2] == "+" else -1)), 0.0, False
        return None, float(self.asked and said == self.answer), True


def in_two_turns(row: Mapping[str, Any]) -> dict[str, Any]:
    question, worked = row["messages"]
    turns = [question, {"role": "assistant", "content": worked["content"].split("=")[0]}]
    return {"messages": [*turns, {"role": "user", "content": row["answer"]}, {"role": "assistant", "content": row["answer"]}]}


def main() -> None:
    torch.set_num_threads(1)
    shown = [in_two_turns(row) for row in make_rows(3000, seed=3, split="train")]
    options: dict[str, Any] = {"assistant_only_loss": True, "batch_size": 48, "max_steps": 150, "learning_rate": 2e-3, "warmup_steps": 10}
    taught = SFTTrainer(str(load_path()), SFTConfig(output_dir=str(FOLDER / "sft"), **options, **SMALL), train_dataset=shown)
    taught.train()
    taught.save_model()
    options = {"batch_size": 24, "num_generations": 8, "max_completion_length": 40, "max_steps": 40, "learning_rate": 3e-4}
    options |= {"warmup_steps": 0.1, "eval_sampling": {"temperature": 0}, **SMALL}
    asked = make_rows(1500, seed=31, split="train", forms="new") + make_rows(750, seed=32, split="train")
    trainer = GRPOTrainer(
        str(FOLDER / "sft"),
        args=GRPOConfig(output_dir=str(FOLDER / "grpo"), **options),
        environment_factory=Calculator,
        train_dataset=as_prompts(asked),
        eval_dataset={forms: as_prompts(make_rows(200, seed=0, split="test", forms=forms)) for forms in ("shown", "new")},  # type: ignore[arg-type]
    )
    before, began = trainer.evaluate(), time.process_time()
    trainer.train()
    seconds, after = time.process_time() - began, trainer.evaluate()
    trainer.save_model()
    for forms in ("shown", "new"):
        print(f"{forms} forms: {before[f'eval_{forms}_accuracy']:.1%} → {after[f'eval_{forms}_accuracy']:.1%} of 200 held-out questions")
    print(f"{seconds:.0f} processor seconds of reinforcement\n")
    inspect_samples(InspectSamplesConfig(output_dir=str(FOLDER / "grpo"), set="eval_new", rows=1))


if __name__ == "__main__":
    main()
