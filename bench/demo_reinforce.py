"""Learning from rewards on the embedded model, over seeds: the last stage of the demo, with GRPO and with RLOO.

    burnish demo                                # makes runs/demo, the model of stage 1
    python bench/demo_reinforce.py

Prints, for each seed, the share of right answers to 200 held-out questions each, asked in the forms that the model was shown and in new
ones, before and after, drawn greedily; and the seconds that training took.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from burnish.cli.demo import as_prompts, reinforcement
from burnish.demo import make_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=["grpo", "rloo"], default=["grpo", "rloo"])
    parser.add_argument("--output", type=Path, default=Path("runs/demo-reinforce.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    held_out: Any = {forms: as_prompts(make_rows(200, seed=0, split="test", forms=forms)) for forms in ("shown", "new")}
    found = []
    for method in options.methods:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                trainer = reinforcement(options.model, Path(folder), seed=seed, rloo=method == "rloo", held_out=held_out)
                shares = {"before": shares_of(trainer.evaluate())}
                began = time.process_time()
                trainer.train()
                seconds = time.process_time() - began
                shares["after"] = shares_of(trainer.evaluate())
            found.append({"method": method, "seed": seed, "processor_seconds": seconds, **shares})
            told = ", ".join(f"{forms} {shares['before'][forms]:.1%} → {shares['after'][forms]:.1%}" for forms in held_out)
            print(f"{method}, seed {seed}: {told}; {seconds:.0f} processor seconds", flush=True)
    for method in options.methods:
        gains = [one["after"]["new"] - one["before"]["new"] for one in found if one["method"] == method]
        print(f"{method}: new forms +{100 * math.fsum(gains) / len(gains):.1f} points on average, least +{100 * min(gains):.1f}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")


def shares_of(metrics: Any) -> dict[str, float]:
    return {forms: metrics[f"eval_{forms}_accuracy"] for forms in ("shown", "new")}


if __name__ == "__main__":
    main()
