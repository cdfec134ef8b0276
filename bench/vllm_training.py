"""GRPO of SmolLM2 against a vLLM server, ten steps, and then with weights that are withheld on purpose.

    make vllm-server                            # in another terminal
    python bench/vllm_training.py --url http://127.0.0.1:8000

Prints the rewards of each step, how far the server's log-probs are from the trainer's, and the sentence with which stale weights are
refused. The reward is the share of short words: cheap, and soon learnt.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from burnish import GRPOConfig, GRPOTrainer
from burnish.rollout.sampler import SamplingError
from burnish.trainer import online

QUESTIONS = ("What is a river?", "Why do birds sing?", "Describe a stone.", "What is snow?", "Who reads books?", "What does a baker do?")


def short_words(sample: Any) -> float:
    words = sample.text.split()
    return sum(len(word) <= 4 for word in words) / max(len(words), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trained(options, f"{folder}/run")
        for line in trainer.state.log_history:
            gap, weight = line["sampling/sampling_logp_difference/mean"], line["sampling/importance_sampling_ratio/mean"]
            print(f"step {line['step']}: reward {line['reward']:.3f}, gap {gap:.1e} nats, importance weight {weight:.4f}")
        publish, first = online.publish_weights, Path(folder) / "first"

        def stale(model: Any, target: Path) -> None:
            if not first.exists():
                publish(model, first)
            shutil.copytree(first, target)

        online.publish_weights = stale
        try:
            trained(options, f"{folder}/stale")
        except SamplingError as error:
            print(f"stale weights: {error}")
        else:
            raise SystemExit("stale weights were not refused")


def trained(options: argparse.Namespace, folder: str) -> GRPOTrainer:
    args = GRPOConfig(
        output_dir=folder, use_vllm=True, vllm_server_base_url=options.url, vllm_untied_head=True, compute_dtype="float32",
        batch_size=4, num_generations=4, max_completion_length=24, max_steps=options.steps, learning_rate=2e-5,
        logging_steps=1, save_strategy="no", reward_workers=1,
    )  # fmt: skip
    rows = [{"prompt": [{"role": "user", "content": question}]} for question in QUESTIONS]
    trainer = GRPOTrainer(str(options.model), short_words, args, train_dataset=rows)
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
