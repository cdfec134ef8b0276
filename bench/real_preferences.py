"""Held-out pairwise accuracy of DPO, KTO and a reward model on real pairs, before and after: `make real-preferences`.

    python bench/real_preferences.py

SmolLM2-135M-Instruct learns from the pairs of `tools/make_preferences.py`, each method for less than ten minutes on two cores. DPO's
and KTO's verdict on a pair is the implicit reward, log π(y|x) - log π_ref(y|x), with the model before training as the reference. Before
training both are 0 for every answer, a tie, and ties count half. The reward model begins with a new head on the same model. Beside them
stands what the model's own log-probs say before training, of whole answers and of their mean token.

A standard error is that of a share of n / 2 pairs, an upper bound: pairs of `replies` are two and two of the same answers. `above` is
the rise in standard errors of a difference, as if before and after were measured on pairs of their own. Settings were chosen on
`--split valid`.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from burnish.config.cpo import CPOConfig
from burnish.config.dpo import DPOConfig
from burnish.config.kto import KTOConfig
from burnish.config.reward import RewardConfig
from burnish.methods.cpo import CPOTrainer
from burnish.methods.dpo import DPOTrainer
from burnish.methods.kto import KTOTrainer
from burnish.methods.reward import RewardTrainer

COMMON: dict[str, Any] = {"batch_size": 8, "max_steps": 40, "warmup_steps": 0.1, "save_strategy": "no", "logging_steps": 10}
SETTINGS: dict[str, dict[str, Any]] = {
    "DPO": {"learning_rate": 2e-5},
    "KTO": {"learning_rate": 2e-5},
    "reward model": {"learning_rate": 5e-5},
}
METHODS: dict[str, tuple[Any, Any]] = {
    "DPO": (DPOConfig, DPOTrainer),
    "KTO": (KTOConfig, KTOTrainer),
    "reward model": (RewardConfig, RewardTrainer),
}
LIKELIHOODS: dict[str, dict[str, Any]] = {"of a whole answer": {}, "of a mean token": {"loss_type": "simpo", "cpo_alpha": 0.0}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    parser.add_argument("--data", type=Path, default=Path("models/preferences/replies"), help="a folder that `make preferences` made")
    parser.add_argument("--split", choices=["test", "valid"], default="test", help="the held-out pairs; settings are chosen on valid")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--settings", type=json.loads, default={}, help="options instead of this file's, as JSON")
    parser.add_argument("--output", type=Path, default=Path("runs/real-preferences.json"))
    options = parser.parse_args()
    held_out = options.data / f"{options.split}.jsonl"
    n = len(held_out.read_text(encoding="utf-8").splitlines())
    likelihoods = {kind: likelihood(kind, options, held_out) for kind in LIKELIHOODS}
    results = {name: measure(name, options, held_out) for name in options.methods}
    print(f"\n{n} held-out pairs of {held_out}; standard errors in brackets")
    for kind, share in likelihoods.items():
        print(f"the model's log-probs before training, {kind}: {with_error(share, n)}")
    print(f"{'':14}{'before':>16}{'after':>16}{'above, in errors':>18}{'training':>10}{'processor':>11}")
    for name, result in results.items():
        before, after = result["before"], result["after"]
        above = (after - before) / max(math.hypot(standard_error(before, n), standard_error(after, n)), 1e-9)
        seconds = f"{result['seconds']:>8.0f} s{result['processor_seconds']:>9.0f} s"
        print(f"{name:14}{with_error(before, n):>16}{with_error(after, n):>16}{above:>18.1f}{seconds}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    written = {"pairs": n, "held_out": str(held_out), "likelihoods": likelihoods, "results": results}
    options.output.write_text(json.dumps(written, indent=1) + "\n")


def likelihood(kind: str, options: argparse.Namespace, held_out: Path) -> float:
    """The share of pairs whose chosen answer is the likelier before training: what a loss without a reference calls its accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        return accuracy(CPOTrainer(str(options.model), args=CPOConfig(output_dir=folder, **LIKELIHOODS[kind])), held_out)


def measure(name: str, options: argparse.Namespace, held_out: Path) -> dict[str, Any]:
    """Trains with one method; accuracy before and after, the seconds of the clock and of the processor that training took."""
    config, trainer_class = METHODS[name]
    settings = COMMON | SETTINGS[name] | options.settings
    with tempfile.TemporaryDirectory() as folder:
        args = config(output_dir=folder, **settings)
        trainer = trainer_class(str(options.model), args=args, train_dataset=str(options.data / "train.jsonl"))
        judge = trainer if name == "reward model" else DPOTrainer(trainer.model, str(options.model), args=DPOConfig(output_dir=folder))
        before = accuracy(judge, held_out)
        wall, processor = time.perf_counter(), time.process_time()
        trainer.train()
        seconds = {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}
        result = {"before": before, "after": accuracy(judge, held_out), **seconds, "settings": settings}
    print(f"{name}: {json.dumps(result)}", flush=True)
    return result


def accuracy(judge: Any, held_out: Path) -> float:
    """The share of pairs whose chosen answer has the larger reward; where all rewards are 0, half."""
    metrics = judge.evaluate(str(held_out))
    if metrics.get("eval_rewards/margins") == 0:
        return 0.5
    return metrics["eval_accuracy" if "eval_accuracy" in metrics else "eval_rewards/accuracies"]


def standard_error(share: float, n: int) -> float:
    return math.sqrt(share * (1 - share) / (n / 2))


def with_error(share: float, n: int) -> str:
    return f"{share:.1%} ({standard_error(share, n):.1%})"


if __name__ == "__main__":
    main()
