"""Training runs of one library, in that library's own interpreter: a JSON list of specifications in, one of results out.

    python bench/one_run.py SPECS.json RESULTS.json

Ours and theirs run this same file. Only the import line and the names of the options differ, so that what is compared is
the libraries and not two harnesses.

Specification::

    {"library": "burnish" | "trl", "method": "sft" | "dpo" | "kto" | "reward" | "grpo" | "rloo",
     "model": "models/smollm2", "chat_template": null,
     "pad_token": null, "rows": [{"text": …}, …], "options": {keyword arguments of the method's config}, "warm_up_steps": 1, "threads": 1,
     "attention": "sdpa", "fp32_precision": null | "bf16" (what `torch.backends.mkldnn.matmul.fp32_precision` is set to),
     "adapter": null | {keyword arguments of LoraConfig}, "adapter_from": null | folder of an adapter that is trained further,
     "ref_model": null | folder}

Result::

    {"log": [{"loss": …, "grad_norm": …, …}, … one for each optimizer step], "parameters": …, "peak_bytes": …,
     "cpu_s": [… one for each measured step], "wall_s": […], "reference_cpu_s": … (computing the reference's log-probs ahead),
     "versions": {…}}
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

NAMES = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "reward": "Reward", "grpo": "GRPO", "rloo": "RLOO"}
ONLINE = ("grpo", "rloo")
PASS = {"burnish": "prepare_to_run", "trl": "_precompute_ref_logps"}
"""The method of a trainer that computes the reference's log-probs ahead."""


def main() -> None:
    specs = json.loads(Path(sys.argv[1]).read_text())
    os.environ["OMP_NUM_THREADS"] = str(specs[0]["threads"])
    results = []
    for spec in specs:
        print(f"options were {spec['options']}", flush=True)
        results.append(run(spec))
    Path(sys.argv[2]).write_text(json.dumps(results))


def run(spec: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(spec["threads"])
    if spec.get("fp32_precision"):
        torch.backends.mkldnn.matmul.fp32_precision = spec["fp32_precision"]
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    if spec.get("chat_template"):
        tokenizer.chat_template = spec["chat_template"]
    if spec.get("pad_token"):
        tokenizer.pad_token = spec["pad_token"]
    model, more = load_models(spec)
    clock, passes = make_clock(), list[float]()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    more |= {"model": model, "train_dataset": spec["rows"], "processing_class": tokenizer, "callbacks": [clock]}
    trainer = make_trainer(spec["library"], spec.get("method", "sft"), spec["options"], more, passes)
    trainer.train()
    measured = clock.readings[spec["warm_up_steps"] - 1 :] if spec["warm_up_steps"] else []
    return {
        "log": [numbers(line) for line in trainer.state.log_history if "grad_norm" in line],
        "parameters": parameters,
        "peak_bytes": peak_bytes(),
        "cpu_s": [after[0] - before[0] for before, after in zip(measured, measured[1:], strict=False)],
        "wall_s": [after[1] - before[1] for before, after in zip(measured, measured[1:], strict=False)],
        "reference_cpu_s": sum(passes),
        "versions": {name: version(name) for name in (spec["library"], "torch", "transformers")},
    }


def numbers(line: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items() if isinstance(value, int | float)}


def load_models(spec: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model, and what else a trainer is given: an adapter, a reference."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    def load(folder: str) -> Any:
        how = {"dtype": torch.float32, "attn_implementation": spec.get("attention", "sdpa")}
        if spec.get("method") != "reward":
            return AutoModelForCausalLM.from_pretrained(folder, **how)
        scorer = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **how)
        scorer.score.weight.data.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(0))  # new, and the same for both
        return scorer

    model, more = load(spec["model"]), dict[str, Any]()
    if spec.get("ref_model"):
        more["ref_model"] = load(spec["ref_model"])
    if spec.get("adapter"):
        from peft import LoraConfig

        more["peft_config"] = LoraConfig(**spec["adapter"])
    if spec.get("adapter_from"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, spec["adapter_from"], is_trainable=True)
    return model, more


def make_clock() -> Any:
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Reads both clocks at the end of every step, so that a step's cost includes making its batch and logging it.

        A new adapter's first factor is drawn anew, so that it is the same whoever made it.
        """

        def __init__(self) -> None:
            self.readings: list[tuple[float, float]] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any = None, **kwargs: Any) -> None:
            named = {name: one for name, one in model.named_parameters() if one.requires_grad and ".lora_" in name}
            if not any(one.any() for name, one in named.items() if "lora_B" in name):
                draw = torch.Generator().manual_seed(0)
                for _, one in sorted((name, one) for name, one in named.items() if "lora_A" in name):
                    one.data.normal_(0.0, 0.1, generator=draw)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.readings.append((time.process_time(), time.perf_counter()))

    return Clock()


def make_trainer(library: str, method: str, options: dict[str, Any], arguments: dict[str, Any], passes: list[float]) -> Any:
    """The library's trainer; `passes` is added the processor time of each pass of the reference ahead of the training."""
    found = importlib.import_module(library)
    if method in ONLINE:
        arguments = arguments | {"reward_funcs": share_of_vowels}
    config, trainer = getattr(found, f"{NAMES[method]}Config"), getattr(found, f"{NAMES[method]}Trainer")
    if library == "trl":
        from datasets import Dataset

        arguments = arguments | {"train_dataset": Dataset.from_list(arguments["train_dataset"])}
    inner = getattr(trainer, PASS[library], None)
    if inner is not None:

        def timed(self: Any, *args: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return inner(self, *args, **more)
            finally:
                passes.append(time.process_time() - began)

        trainer = type(trainer.__name__, (trainer,), {PASS[library]: timed})
    return trainer(args=config(**options), **arguments)


def share_of_vowels(completions: list[str], **columns: Any) -> list[float]:
    """A reward that costs nothing and differs between completions."""
    return [sum(map(completion.lower().count, "aeiou")) / max(len(completion), 1) for completion in completions]


def peak_bytes() -> int:
    """The most memory this process ever held resident.

    Linux's own count of this program's memory: `ru_maxrss` would start from what the parent held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    main()
