"""What `parity_sft.py` and `parity_preference.py` share: the same steps of ours and of TRL's, case by case, and how far apart they are.

Both sides have the same model, rows, order and hyper-parameters, in float32, without dropout, clipping on; gradient norms are those
before clipping. The models are a small random Llama, whose gradient is large everywhere, and SmolLM2 itself. Each side runs in its own
interpreter, all cases of a model one after another.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import ask, trl_python

TOLERANCES = {"loss": 1e-4, "grad_norm": 1e-3}
"""Relative."""
STEPS, BATCH = 3, 4

FACTS = [
    ("What is the capital of France?", "Paris."),
    ("Name three primary colours.", "Red, yellow and blue."),
    ("How many legs has a spider?", "A spider has eight legs; an insect has only six of them."),
    ("Add 17 and 25.", "17 + 25 = 42"),
    ("Why is the sky blue?", "Air scatters the short waves of sunlight more than the long ones, so blue reaches the eye from everywhere."),
    ("Say hello.", "Hello!"),
    ("Which planet is the largest?", "Jupiter, with more than twice the mass of all the others together."),
    ("Write a list of two fruits.", "1. Apple\n2. Pear"),
    ("Is ice lighter than water?", "Yes, and so it floats."),
    ("What does a baker do?", "A baker makes bread,\n\nrolls and cakes, mostly before 6 in the morning."),
    ("Spell cat.", "c-a-t"),
    ("When did people first walk on the Moon?", "In July 1969; two of the three who flew there walked."),
]
assert len(FACTS) == STEPS * BATCH

COMMON = {
    "max_steps": STEPS,
    "lr_scheduler_type": "constant",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_length": None,
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}
# Two rows at a time on their side, all in one tree on ours: how a step is cut must not change it.
OWN: dict[str, dict[str, Any]] = {
    "trl": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
    },
    "burnish": {"batch_size": BATCH, "compute_dtype": "float32"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison: what both sides are given, and what only one of them is."""

    rows: list[dict[str, Any]]
    method: str = "sft"
    options: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    """Options of ours alone."""
    theirs: dict[str, Any] = field(default_factory=dict)
    their_rows: list[dict[str, Any]] | None = None
    """Where theirs need another order."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further entries of the specification (see `subjects/training.py`): a chat template, an adapter, a reference."""
    models: tuple[str, ...] = ("random", "SmolLM2")
    metrics: dict[str, float] = field(default_factory=dict)
    """Further metrics by how far apart they may be: relative, or absolute below 1."""


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    parser.add_argument("--trl-python", type=Path, default=Path(".venv-trl/bin/python"))
    parser.add_argument("--library", choices=["trl", "burnish"], help="run this one alone and print its numbers")
    parser.add_argument("--only", default="", help="only the cases whose name begins so")
    parser.add_argument("--on", choices=["random", "SmolLM2"], help="only this model")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main(cases: dict[str, Case], options: argparse.Namespace) -> None:
    """Prints both sides of every case; exits with status 1 unless all of them agree. Raises SystemExit where no case is named so."""
    if not any(name.startswith(options.only) and options.on in (None, *case.models) for name, case in cases.items()):
        on = f" on {options.on}" if options.on else ""
        raise SystemExit(f"--only {options.only!r}: no case{on} begins so; there are {'; '.join(cases)}.")
    gaps: dict[str, float] = {}
    too_far: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        models = {"random": (make_random_llama(options.model, Path(scratch)), 1e-3), "SmolLM2": (options.model, 1e-5)}
        for model, (folder, rate) in models.items():
            if options.on not in (None, model):
                continue
            chosen = {name: case for name, case in cases.items() if model in case.models and name.startswith(options.only)}
            logs = run_both(chosen, folder, rate, Path(scratch), options)
            for name, case in chosen.items():
                own = {library: log[name] for library, log in logs.items()}
                if options.library:
                    print(json.dumps({"model": model, "case": name} | own), flush=True)
                    continue
                for metric, gap in compare(f"{model:<8} {name}", own["burnish"], own["trl"], case).items():
                    gaps[metric] = max(gaps.get(metric, 0.0), gap)
                    if gap > (TOLERANCES | case.metrics)[metric]:
                        too_far.append(f"{model} {name}: {metric} {gap:.1e}")
    if options.library:
        return
    print(f"{'DIFFERS' if too_far else 'agrees'}: largest difference of " + ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items()))
    print("\n".join(too_far))
    raise SystemExit(1 if too_far else 0)


def run_both(
    cases: dict[str, Case], model: Path, learning_rate: float, scratch: Path, options: argparse.Namespace
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """By library and case: the log of its steps."""
    logs = {}
    for library in [options.library] if options.library else ["burnish", "trl"]:
        python = trl_python(options.trl_python) if library == "trl" else None
        common = COMMON | {"learning_rate": learning_rate, "output_dir": str(scratch / "run")} | OWN[library]
        specs = [specification(case, library, common, model, options.threads) for case in cases.values()]
        results = ask("training", specs, python=python, threads=options.threads)[0] if specs else []
        logs[library] = {name: result["log"] for name, result in zip(cases, results, strict=True)}
        for name, log in logs[library].items():
            if len(log) != STEPS:
                raise SystemExit(f"{library} logged {len(log)} of {STEPS} steps of {name!r}: set its logging to every step.")
    return logs


def specification(case: Case, library: str, common: dict[str, Any], model: Path, threads: int) -> dict[str, Any]:
    theirs = library == "trl"
    return case.more | {
        "library": library,
        "method": case.method,
        "model": str(model),
        "rows": case.their_rows if theirs and case.their_rows else case.rows,
        "options": common | case.options | (case.theirs if theirs else case.ours) | ({} if theirs else {"overwrite_output_dir": True}),
        "warm_up_steps": 0,
        "threads": threads,
    }


def compare(name: str, ours: list[dict[str, float]], theirs: list[dict[str, float]], case: Case) -> dict[str, float]:
    """Prints both sides of one case; by metric the largest difference of a step: relative, and absolute where the number is below 1
    and it is neither a loss nor a norm."""
    gaps: dict[str, float] = {}
    for step, (our_line, their_line) in enumerate(zip(ours, theirs, strict=True), start=1):
        shown = []
        for metric in TOLERANCES | case.metrics:
            mine, other = our_line[metric], their_line[metric]
            gap = apart(mine, other, least=0.0 if metric in TOLERANCES else 1.0)
            gaps[metric] = max(gaps.get(metric, 0.0), gap)
            if metric in TOLERANCES:
                shown.append(f"{metric} ours {mine:12.6f} theirs {other:12.6f} relative {gap:.1e}")
        print(f"{name:<44} step {step}  {'  '.join(shown)}", flush=True)
    if case.metrics:
        print(f"{name:<44} metrics " + "  ".join(f"{metric} {gaps[metric]:.1e}" for metric in case.metrics), flush=True)
    return gaps


def apart(mine: float, other: float, *, least: float) -> float:
    """Their difference over `other`, or over `least` where that is more. Infinite where one is no number, or `other` alone is 0."""
    if not (math.isfinite(mine) and math.isfinite(other)):
        return math.inf
    size = max(least, abs(other))
    return abs(mine - other) / size if size else 0.0 if mine == other else math.inf


def make_random_llama(tokenizer_from: Path, scratch: Path, *, name: str = "random", seed: int = 0) -> Path:
    """A folder with a small Llama of random weights and the tokenizer of `tokenizer_from`."""
    import torch
    import transformers
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    transformers.utils.logging.disable_progress_bar()
    folder = scratch / name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
