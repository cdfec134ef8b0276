"""SFT of SmolLM2 on rows of very unequal length, side by side with TRL 1.16 in one run: `make bench-sft`.

    python bench/sft.py --trl-python .venv-trl/bin/python

Ours and theirs take turns on the same rows and model, each in a fresh process that does one step to warm up and then measures
whole optimizer steps: making the batch, forward, backward, clipping, update and logging. Processor time and peak resident
memory are read in that process. What is compared is the median, over rounds, of theirs divided by ours.

TRL runs as its user would best run it on a CPU. `THEIRS` holds the settings that were fastest and smallest of those tried
(docs/benchmarks.md has them all); `--all` measures what comes without choosing, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from subject import run_once, trl_python

LENGTHS = (40, 48, 64, 96, 128, 190, 275, 500)

COMMON = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "max_length": None,
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}
THEIR_COMMON = {"use_cpu": True, "disable_tqdm": True}
ONE_BY_ONE = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": len(LENGTHS)}
THEIRS: dict[str, dict[str, Any]] = {
    "TRL, fastest": {"options": {**ONE_BY_ONE, "gradient_checkpointing": False}, "attention": "eager"},
    "TRL, smallest": {"options": {**ONE_BY_ONE, "gradient_checkpointing": True}, "attention": "sdpa"},
}
UNCHOSEN: dict[str, dict[str, Any]] = {
    "TRL, one padded batch": {
        "options": {"per_device_train_batch_size": len(LENGTHS), "gradient_checkpointing": True},
        "attention": "sdpa",
    },
}
PRODUCTS = {"default": "multiplies unless told otherwise", "onednn": "multiplies through oneDNN"}
OURS: dict[str, Any] = {"batch_size": len(LENGTHS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    parser.add_argument("--trl-python", type=Path, default=Path(".venv-trl/bin/python"))
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.add_argument("--steps", type=int, default=2, help="measured optimizer steps in a turn, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compute-dtype", choices=["float32", "bfloat16"], default="float32", help="of both; the weights are float32")
    parser.add_argument("--onednn", action="store_true", help="have PyTorch hand float32 products to oneDNN, in both")
    parser.add_argument("--all", action="store_true", help="measure also the settings of TRL that come without choosing")
    parser.add_argument("--output", type=Path, default=Path("runs/bench-sft.json"))
    options = parser.parse_args()
    theirs = THEIRS | (UNCHOSEN if options.all else {})
    rows = make_rows(options.model)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in ["ours", *theirs]}
    peaks = []
    for turn in range(1, options.rounds + 1):
        peaks.append(matmul_peak(options.threads))
        for name in turns:
            result = run_once(specification(name, theirs, rows, options), trl_python(options.trl_python) if name in theirs else None)
            turns[name].append(result)
            print(f"round {turn}  {describe(name, [result])}", flush=True)
    report(turns, peaks, options)


def make_rows(model: Path) -> list[dict[str, str]]:
    """Text of exactly `LENGTHS` tokens once the end token is added: words that are one token each, drawn with a seed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    words = sorted(token[1:] for token in tokenizer.get_vocab() if token[0] == "Ġ" and len(token) > 3 and token[1:].isascii())
    draw = random.Random(0)
    rows = [" " + " ".join(draw.choices([word for word in words if word.islower() and word.isalpha()], k=n - 1)) for n in LENGTHS]
    lengths = tuple(len(ids) + 1 for ids in tokenizer(rows).input_ids)
    if lengths != LENGTHS:
        raise SystemExit(f"The rows have {lengths} tokens and not {LENGTHS}: {model} has another tokenizer than SmolLM2's.")
    return [{"text": row} for row in rows]


def specification(name: str, theirs: dict[str, Any], rows: list[dict[str, str]], options: argparse.Namespace) -> dict[str, Any]:
    if name in theirs:
        own = THEIR_COMMON | {"bf16": options.compute_dtype == "bfloat16"} | theirs[name]["options"]
    else:
        own = OURS | {"compute_dtype": options.compute_dtype}
    common = COMMON | {"max_steps": 1 + options.steps, "output_dir": tempfile.mkdtemp(prefix="bench-sft-")}
    return {
        "library": "trl" if name in theirs else "burnish",
        "model": str(options.model),
        "rows": rows,
        "warm_up_steps": 1,
        "threads": options.threads,
        "fp32_precision": "bf16" if options.onednn else None,
        "attention": theirs[name]["attention"] if name in theirs else "sdpa",
        "options": common | own,
    }


def matmul_peak(threads: int) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).with_name("matmul_peak.py")), str(threads)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def describe(name: str, results: list[dict[str, Any]]) -> str:
    cpu, wall = (median(second for result in results for second in result[key]) for key in ("cpu_s", "wall_s"))
    peak = median(result["peak_bytes"] for result in results)
    return (
        f"{name:<22} {cpu:7.2f} CPU s a step  {wall:7.2f} s wall  {peak / 1e9:6.2f} GB peak  first loss {results[0]['log'][0]['loss']:.4f}"
    )


def report(turns: dict[str, list[dict[str, Any]]], peaks: list[dict[str, float]], options: argparse.Namespace) -> None:
    ours, parameters, tokens = turns["ours"], turns["ours"][0]["parameters"], sum(LENGTHS)
    reached = median(6 * parameters * tokens * options.threads / cpu for turn in ours for cpu in turn["cpu_s"])
    peak = {product: max(found[product] for found in peaks) for product in peaks[0]}
    shares = {product: reached / value for product, value in peak.items()}
    print(f"\n{len(LENGTHS)} rows of {LENGTHS[0]} to {LENGTHS[-1]} tokens, {tokens:,} in all; {parameters:,} parameters")
    print(f"{options.compute_dtype}, {options.threads} thread(s), {processor()}; {options.rounds} rounds of {options.steps} steps")
    for name, results in turns.items():
        print(describe(name, results))
    ratios = {
        name: {
            key: median(step_ratio(key, theirs, own) for theirs, own in zip(results, ours, strict=True))
            for key in ("cpu_s", "wall_s", "peak_bytes")
        }
        for name, results in turns.items()
        if name != "ours"
    }
    for name, ratio in ratios.items():
        print(f"{name} / ours: CPU time {ratio['cpu_s']:.2f}, wall {ratio['wall_s']:.2f}, peak memory {ratio['peak_bytes']:.2f}")
    print(f"ours computes {reached / 1e9:.0f} GFLOP in a second of all its threads (6 x parameters x tokens); float32 products reach:")
    for product, value in peak.items():
        print(f"  {value / 1e9:.0f} as PyTorch {PRODUCTS[product]}: ours is at {shares[product]:.0%} of it")
    record = {
        "lengths": LENGTHS,
        "threads": options.threads,
        "compute_dtype": options.compute_dtype,
        "onednn": options.onednn,
        "processor": processor(),
        "python": platform.python_version(),
        "turns": turns,
        "ratios": ratios,
        "matmul_peaks": peaks,
        "share_of_peak": shares,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"all numbers are in {options.output}")


def step_ratio(key: str, theirs: dict[str, Any], ours: dict[str, Any]) -> float:
    if key == "peak_bytes":
        return theirs[key] / ours[key]
    return median(theirs[key]) / median(ours[key])


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
