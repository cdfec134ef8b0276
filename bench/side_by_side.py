"""What `sft.py` and `preference.py` share: ours and theirs take turns on the same rows and model, and medians of ratios are reported.

Each turn is a fresh process that does one step to warm up and then measures whole optimizer steps: making the batch, forward, backward,
clipping, update and logging. Processor time and peak resident memory are read in that process.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from subject import run_once, trl_python

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
Turns = dict[str, list[dict[str, Any]]]


def parser(description: str | None, output: str) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    found.add_argument("--trl-python", type=Path, default=Path(".venv-trl/bin/python"))
    found.add_argument("--rounds", type=int, default=2, help="turns of each")
    found.add_argument("--steps", type=int, default=2, help="measured optimizer steps in a turn, after one to warm up")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--compute-dtype", choices=["float32", "bfloat16"], default="float32", help="of both; the weights are float32")
    found.add_argument("--onednn", action="store_true", help="have PyTorch hand float32 products to oneDNN, in both")
    found.add_argument("--output", type=Path, default=Path(output))
    return found


def texts(model: Path, lengths: Sequence[int]) -> list[str]:
    """One text of each length in tokens: words that are one token each, each with a space before it, drawn with a seed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    words = sorted(token[1:] for token in tokenizer.get_vocab() if token[0] == "Ġ" and len(token) > 3 and token[1:].isascii())
    words = [word for word in words if word.islower() and word.isalpha()]
    draw = random.Random(0)
    found = [" " + " ".join(draw.choices(words, k=n)) for n in lengths]
    made = [len(ids) for ids in tokenizer(found, add_special_tokens=False).input_ids]
    if made != list(lengths):
        raise SystemExit(f"The texts have {made} tokens and not {list(lengths)}: {model} has another tokenizer than SmolLM2's.")
    return found


def specification(
    rows: list[dict[str, Any]], own: dict[str, Any], options: argparse.Namespace, *, theirs: bool, method: str = "sft"
) -> dict[str, Any]:
    """What one turn is to do; `own` holds the side's options and, of TRL, its attention."""
    dtype = {"bf16": options.compute_dtype == "bfloat16"} if theirs else {"compute_dtype": options.compute_dtype}
    folder = tempfile.mkdtemp(prefix=f"bench-{method}-")
    common = COMMON | {"max_steps": 1 + options.steps, "output_dir": folder} | dtype | (THEIR_COMMON if theirs else {})
    return {
        "library": "trl" if theirs else "burnish",
        "method": method,
        "model": str(options.model),
        "rows": rows,
        "warm_up_steps": 1,
        "threads": options.threads,
        "fp32_precision": "bf16" if options.onednn else None,
        "attention": own.get("attention", "sdpa"),
        "options": common | own["options"],
        **{name: value for name, value in own.items() if name not in ("options", "attention")},
    }


def turn(name: str, spec: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One turn of one side, shown when it is done."""
    result = run_once(spec, trl_python(options.trl_python) if spec["library"] == "trl" else None)
    print(describe(name, [result]), flush=True)
    return result


def describe(name: str, results: list[dict[str, Any]]) -> str:
    cpu, wall = (median(second for result in results for second in result[key]) for key in ("cpu_s", "wall_s"))
    peak, ahead = (median(result[key] for result in results) for key in ("peak_bytes", "reference_cpu_s"))
    first = results[0]["log"][0]["loss"]
    line = f"{name:<36} {cpu:7.2f} CPU s a step  {wall:7.2f} s wall  {peak / 1e9:6.2f} GB peak  first loss {first:.4f}"
    return line + (f"  reference ahead {ahead:.2f} CPU s" if ahead > 0.5 else "")


def ratios_of(turns: Turns, ours: str) -> dict[str, dict[str, float]]:
    """Medians, over rounds, of theirs divided by ours."""
    keys = ("cpu_s", "wall_s", "peak_bytes")
    return {
        name: {key: median(_ratio(key, theirs, own) for theirs, own in zip(results, turns[ours], strict=True)) for key in keys}
        for name, results in turns.items()
        if name != ours
    }


def _ratio(key: str, theirs: dict[str, Any], ours: dict[str, Any]) -> float:
    return theirs[key] / ours[key] if key == "peak_bytes" else median(theirs[key]) / median(ours[key])


def show_ratios(ratios: dict[str, dict[str, float]], ours: str) -> None:
    for name, ratio in ratios.items():
        print(f"{name} / {ours}: CPU time {ratio['cpu_s']:.2f}, wall {ratio['wall_s']:.2f}, peak memory {ratio['peak_bytes']:.2f}")


def write(record: dict[str, Any], options: argparse.Namespace) -> None:
    """Everything that was measured, and where."""
    shared = {"threads": options.threads, "compute_dtype": options.compute_dtype, "onednn": options.onednn}
    shared |= {"processor": processor(), "python": platform.python_version()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(shared | record, indent=1) + "\n")
    print(f"all numbers are in {options.output}")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
