"""Runs that are stopped and continued. Run as a module, it is the new process that continues them.

python -m tests.laws.continued FOLDER, with the runs to continue, and those to repeat from their start, under FOLDER.
"""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from burnish.distributed.shards import whole as whole_tensor
from burnish.report.metrics import read_metrics
from burnish.report.samples import read_samples
from tests.laws.methods import CASES, Case, build_trainer

STEPS = 8  # two epochs of four steps; the last step of each has one example
STOPS = (1, 4, 5, 7)
"""Stopped after so many steps; 4 is the end of an epoch."""

VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {"weight_decay": 0.1, "warmup_steps": 3, "lr_scheduler_type": "cosine"},
    "lora with dropout": {"learning_rate": 1e-2},
    "muon": {"optim": "muon", "learning_rate": 1e-2},
    "adafactor": {"optim": "adafactor", "gradient_checkpointing": True},
}
ADAPTIVE = "adaptive entropy"
OWN: dict[str, dict[str, Any]] = {
    ADAPTIVE: {"use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_coef_delta": 0.05, "entropy_target": 10.0},
}
"""What methods keep beside the weights, of which the loop knows nothing."""


def variants(case: Case) -> list[str]:
    """Optimizers are the loop's, whatever the method is."""
    if case.loops:
        return list(VARIANTS)
    if case.name == "grpo-dapo":
        return ["adamw", ADAPTIVE]
    return (
        ["adamw", "lora with dropout"]
        if case.name in ("dpo-sigmoid", "dpo-following", "kto-kto", "kto", "reward-bradley_terry")
        else ["adamw"]
    )


def stops(case: Case) -> tuple[int, ...]:
    """Where steps are yet to come of a sampling, where the last of them is done, and in the first step of another."""
    return STOPS if case.loops or case.name == "grpo-dapo" else (3, 5)


CASE = {case.name: case for case in CASES if "resume" not in case.exempt}


def build(case: Case, variant: str, folder: Path, *, seed: int = 42, **options: Any) -> Any:
    """A trainer whose model has dropout, and which logs and evaluates off the beat of its checkpoints."""
    more: dict[str, Any] = {"learning_rate": 1e-3, "logging_steps": 3, "eval_strategy": "steps", "eval_steps": 4}
    more |= {} if "max_steps" in case.options else {"num_train_epochs": 2}
    if "lora" in variant:
        from peft import LoraConfig

        more["peft_config"] = LoraConfig(r=2, lora_dropout=0.2, target_modules=["q_proj", "v_proj"])
    model = case.model(dtype=torch.float32, attention_dropout=0.1)
    options = {**more, **(VARIANTS | OWN)[variant], **options}
    return build_trainer(case, model, folder, seed=seed, eval_dataset=list(case.rows[:3]), **options)


def whole(case: Case, variant: str, folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Trains from the start to the end; the weights."""
    trainer = build(case, variant, folder, **options)
    assert trainer.train().global_step == STEPS
    return weights(trainer)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {n: whole_tensor(p.detach()).clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock writes."""
    return [{name: v for name, v in line.items() if not clocked(name)} for line in read_metrics(folder / "metrics.jsonl")]


def clocked(name: str) -> bool:
    return name.endswith(("tokens_per_second", "runtime")) or name.startswith("time/")


def samples(folder: Path) -> list[dict[str, Any]]:
    """Every completion of a run."""
    return list(read_samples(folder))


def cut_short(run: Path, step: int, into: Path) -> None:
    """What is left of `run` when it is killed after checkpoint `step`, in the middle of later metrics and samples."""
    shutil.copytree(run, into)
    for checkpoint in into.glob("checkpoint-*"):
        if int(checkpoint.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(checkpoint)
    with (into / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 99, "lo')
    for path in into.glob("samples/*"):
        with path.open("ab") as torn:
            torn.write(gzip.compress(b'{"step": 99}')[:-6])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(torch.seed())  # nothing may depend on what came before
    for run in sorted(path for path in folder.iterdir() if path.name.startswith(("stopped ", "again "))):
        how, name, variant, step = run.name.split(" ", 1)[0], *run.name.split(" ", 1)[1].split("; ")
        trainer = build(CASE[name], variant, run, save_strategy="no")
        began = []
        trainer.console.message = lambda *texts, said=began: said.extend(texts)
        trainer.train()
        expected = f"Continuing from {run / f'checkpoint-{step}'}, step {step} of {STEPS}."
        assert (expected in began) == (how == "stopped"), began
        torch.save(weights(trainer), run / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
