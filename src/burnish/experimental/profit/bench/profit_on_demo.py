"""ProFit beside SFT on the embedded model and its task: prints the tables of ../README.md.

    OMP_NUM_THREADS=1 python src/burnish/experimental/profit/bench/profit_on_demo.py

First from the embedded model as it is, which has never seen a question; then from one that SFT has taught to answer, going on with rows of
which a share has another row's answer in place of its own.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from burnish import SFTConfig, SFTTrainer
from burnish.cli.demo import answer, share_right
from burnish.demo import load_path, make_rows
from burnish.experimental.profit import ProFitConfig, ProFitTrainer

COMMON = {
    "overwrite_output_dir": True,
    "save_strategy": "no",
    "assistant_only_loss": True,
    "batch_size": 48,
    "warmup_steps": 10,
    "compute_dtype": "float32",
    "disable_tqdm": True,
    "logging_steps": 10,
}
METHODS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "SFT, nll": (SFTTrainer, SFTConfig, {}),
    "SFT, dft": (SFTTrainer, SFTConfig, {"loss_type": "dft"}),
    "ProFit, τ = 0.01": (ProFitTrainer, ProFitConfig, {"prob_threshold": 0.01}),
    "ProFit, τ = 0.1": (ProFitTrainer, ProFitConfig, {}),
}


def rows_of(seed: int, wrong: float) -> list[dict[str, Any]]:
    """The demo's rows; that share of them with the answer of a random other."""
    rows, rng = make_rows(5000, seed=seed, split="train"), random.Random(seed)
    answers = [row["messages"][1] for row in rows]
    return [{"messages": [row["messages"][0], rng.choice(answers) if rng.random() < wrong else row["messages"][1]]} for row in rows]


def train(name: str, start: Path, folder: Path, rows: list[dict[str, Any]], **options: Any) -> float:
    """From the model in `start` to the one in `folder`; the share of tokens that the last ten steps kept."""
    trainer_class, config_class, own = METHODS[name]
    trainer = trainer_class(str(start), config_class(**COMMON, **own, **options, output_dir=str(folder)), train_dataset=rows)
    trainer.train()
    trainer.save_model()
    return [line.get("kept_share", 1.0) for line in trainer.state.log_history if "loss" in line][-1]


def right(folder: Path, seed: int) -> list[float]:
    """Share of 200 held-out questions that the model answers right: in the forms it was shown, and in new ones."""
    return [share_right(answer(folder, rows), rows) for rows in (make_rows(200, 1000 + seed, "test", f) for f in ("shown", "new"))]


def go_on(name: str, start: Path, folder: Path, seed: int, wrong: float) -> list[float]:
    kept = train(name, start, folder, rows_of(100 + seed, wrong), seed=100 + seed, max_steps=80, learning_rate=1e-3)
    return [*right(folder, seed), kept]


def show(name: str, found: list[list[float]]) -> None:
    columns = [f"{statistics.mean(c):.1%} ({' '.join(f'{one:.1%}' for one in c)})" for c in zip(*found, strict=True)]
    print(f"| {name} | {' | '.join(columns)} |", flush=True)


def main() -> None:
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--seeds", type=int, default=3)
    said.add_argument("--wrong", type=float, nargs="*", default=[0.3, 0.6])
    given = said.parse_args()
    torch.set_num_threads(1)
    seeds = range(given.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        taught = [Path(temporary) / f"taught {seed}" for seed in seeds]
        print("From the embedded model, 150 steps: shown forms | new forms | tokens kept; mean (each seed)", flush=True)
        for name in ("SFT, nll", "ProFit, τ = 0.01", "ProFit, τ = 0.1"):
            found = []
            for seed in seeds:
                folder = taught[seed] if name == "SFT, nll" else Path(temporary) / "one"
                kept = train(name, load_path(), folder, rows_of(seed, 0.0), seed=seed, max_steps=150, learning_rate=2e-3)
                found.append([*right(folder, seed), kept])
            show(name, found)
        for wrong in given.wrong:
            print(f"From what nll made of it, 80 more steps on rows of which {wrong:.0%} have a wrong answer", flush=True)
            for name in METHODS:
                show(name, [go_on(name, taught[seed], Path(temporary) / "one", seed, wrong) for seed in seeds])


if __name__ == "__main__":
    main()
