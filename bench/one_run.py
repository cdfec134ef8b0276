"""One training run of one library, in that library's own interpreter: a JSON specification in, a JSON result out.

    python bench/one_run.py SPEC.json RESULT.json

Ours and theirs run this same file. Only the import line and the names of the options differ, so that what is compared is
the libraries and not two harnesses.

Specification::

    {"library": "burnish" | "trl", "model": "models/smollm2", "chat_template": null, "rows": [{"text": …}, …],
     "options": {keyword arguments of SFTConfig}, "warm_up_steps": 1, "threads": 1, "attention": "sdpa",
     "fp32_precision": null | "bf16" (what `torch.backends.mkldnn.matmul.fp32_precision` is set to)}

Result::

    {"log": [{"loss": …, "grad_norm": …}, … one for each optimizer step], "parameters": …, "peak_bytes": …,
     "cpu_s": [… one for each measured step], "wall_s": […], "versions": {…}}
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    os.environ["OMP_NUM_THREADS"] = str(spec["threads"])
    Path(sys.argv[2]).write_text(json.dumps(run(spec)))


def run(spec: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    torch.set_num_threads(spec["threads"])
    if spec.get("fp32_precision"):
        torch.backends.mkldnn.matmul.fp32_precision = spec["fp32_precision"]

    class Clock(TrainerCallback):
        """Reads both clocks at the end of every step, so that a step's cost includes making its batch and logging it."""

        def __init__(self) -> None:
            self.readings: list[tuple[float, float]] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.readings.append((time.process_time(), time.perf_counter()))

    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    if spec.get("chat_template"):
        tokenizer.chat_template = spec["chat_template"]
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32, attn_implementation=spec.get("attention", "sdpa"))
    clock = Clock()
    trainer = make_trainer(
        spec["library"],
        spec["options"],
        {"model": model, "train_dataset": spec["rows"], "processing_class": tokenizer, "callbacks": [clock]},
    )
    trainer.train()
    measured = clock.readings[spec["warm_up_steps"] - 1 :] if spec["warm_up_steps"] else []
    return {
        "log": [{"loss": line["loss"], "grad_norm": line["grad_norm"]} for line in trainer.state.log_history if "grad_norm" in line],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_bytes": peak_bytes(),
        "cpu_s": [after[0] - before[0] for before, after in zip(measured, measured[1:], strict=False)],
        "wall_s": [after[1] - before[1] for before, after in zip(measured, measured[1:], strict=False)],
        "versions": {name: version(name) for name in (spec["library"], "torch", "transformers")},
    }


def make_trainer(library: str, options: dict[str, Any], arguments: dict[str, Any]) -> Any:
    if library == "burnish":
        from burnish import SFTConfig, SFTTrainer

        return SFTTrainer(args=SFTConfig(**options), **arguments)
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(args=SFTConfig(**options), **arguments | {"train_dataset": Dataset.from_list(arguments["train_dataset"])})


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
