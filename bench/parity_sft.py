"""Three optimizer steps of ours and of TRL's SFTTrainer: same model, rows, order and hyper-parameters, in float32.

    python bench/parity_sft.py --trl-python .venv-trl/bin/python

prints loss and gradient norm of both for each kind of row and each step, and exits with status 1 unless every loss agrees to
1e-4 and every gradient norm to 1e-3, both relative. The norms are those before clipping, which is on.

The models are a small random Llama, whose gradient is large everywhere, and SmolLM2 itself. Each side runs in its own
interpreter; `--library trl` or `--library burnish` runs one alone and prints its numbers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from subject import run_once, trl_python

LOSS_TOLERANCE, NORM_TOLERANCE = 1e-4, 1e-3
STEPS, BATCH = 3, 4

# ChatML as SmolLM2 has it, with the marks TRL needs to know what the assistant said. Ours is given the same.
MARKED_CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

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


def chat_rows() -> list[dict[str, Any]]:
    """Every third row has a system message, every second a first exchange before the one asked for."""
    rows = []
    for i, (question, answer) in enumerate(FACTS):
        turns = [("system", "Answer in few words.")] if i % 3 == 0 else []
        turns += [("user", "Hi there"), ("assistant", "Good day. What would you like to know?")] if i % 2 else []
        turns += [("user", question), ("assistant", answer)]
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    return rows


KINDS: dict[str, dict[str, Any]] = {
    "text": {"rows": [{"text": f"{question} {answer}"} for question, answer in FACTS]},
    "prompt-completion": {"rows": [{"prompt": question, "completion": " " + answer} for question, answer in FACTS]},
    "prompt-completion, all": {
        "rows": [{"prompt": question, "completion": " " + answer} for question, answer in FACTS],
        "options": {"completion_only_loss": False},
    },
    "chat": {"rows": chat_rows()},
    "chat, assistant only": {"rows": chat_rows(), "options": {"assistant_only_loss": True}, "chat_template": MARKED_CHATML},
    "text, dft": {"rows": [{"text": f"{question} {answer}"} for question, answer in FACTS], "options": {"loss_type": "dft"}},
}

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
# Two rows at a time on their side, all four in one tree on ours: how a step is cut must not change it.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    parser.add_argument("--trl-python", type=Path, default=Path(".venv-trl/bin/python"))
    parser.add_argument("--library", choices=["trl", "burnish"], help="run this one alone and print its numbers")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        models = {"random": (make_random_llama(options.model, Path(scratch)), 1e-3), "SmolLM2": (options.model, 1e-5)}
        worst = [
            compare(name, kind, spec, options)
            for name, (folder, learning_rate) in models.items()
            for kind, spec in specifications(folder, learning_rate, options.threads, Path(scratch)).items()
        ]
    if options.library:
        return
    loss_gap, norm_gap = (max(gaps) for gaps in zip(*worst, strict=True))
    agrees = loss_gap <= LOSS_TOLERANCE and norm_gap <= NORM_TOLERANCE
    print(f"{'agrees' if agrees else 'DIFFERS'}: largest difference of a loss {loss_gap:.1e}, of a gradient norm {norm_gap:.1e}")
    raise SystemExit(0 if agrees else 1)


def specifications(model: Path, learning_rate: float, threads: int, scratch: Path) -> dict[str, dict[str, Any]]:
    return {
        kind: {
            "model": str(model),
            "rows": spec["rows"],
            "chat_template": spec.get("chat_template"),
            "options": COMMON | {"learning_rate": learning_rate, "output_dir": str(scratch / "run")} | spec.get("options", {}),
            "warm_up_steps": 0,
            "threads": threads,
        }
        for kind, spec in KINDS.items()
    }


def compare(model: str, kind: str, spec: dict[str, Any], options: argparse.Namespace) -> tuple[float, float]:
    """Print both sides of one kind of row; return the largest relative differences of loss and of gradient norm."""
    logs = {}
    for library in [options.library] if options.library else ["burnish", "trl"]:
        python = trl_python(options.trl_python) if library == "trl" else None
        own = spec | {"library": library, "options": spec["options"] | OWN[library]}
        logs[library] = run_once(own, python)["log"]
        if len(logs[library]) != STEPS:
            raise SystemExit(f"{library} logged {len(logs[library])} of {STEPS} steps for {kind} rows: set its logging to every step.")
    if options.library:
        print(json.dumps({"model": model, "rows": kind, options.library: logs[options.library]}), flush=True)
        return 0.0, 0.0
    gaps = {"loss": 0.0, "grad_norm": 0.0}
    for step, (ours, theirs) in enumerate(zip(logs["burnish"], logs["trl"], strict=True), start=1):
        for key in gaps:
            gap = abs(ours[key] - theirs[key]) / abs(theirs[key])
            gaps[key] = max(gaps[key], gap)
            numbers = f"ours {ours[key]:10.6f}  theirs {theirs[key]:10.6f}  relative {gap:.1e}"
            print(f"{model:<8} {kind:<23} step {step}  {key:<9}  {numbers}", flush=True)
    return gaps["loss"], gaps["grad_norm"]


def make_random_llama(tokenizer_from: Path, scratch: Path) -> Path:
    import torch
    import transformers
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    torch.manual_seed(0)
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
    folder = scratch / "random"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
