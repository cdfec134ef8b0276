"""Training runs of one library, in that library's own interpreter.

Ours and theirs run this same file. Only the import line and the names of the options differ, so that what is compared is
the libraries and not two harnesses.

Specification::

    {"library": "burnish" | "trl", "method": "sft" | "dpo" | "kto" | "reward" | "grpo" | "rloo",
     "model": "models/smollm2", "chat_template": null,
     "pad_token": null, "rows": [{"text": …}, …], "options": {keyword arguments of the method's config}, "warm_up_steps": 1, "threads": 1,
     "attention": "sdpa", "fp32_precision": null | "bf16" (what `torch.backends.mkldnn.matmul.fp32_precision` is set to),
     "adapter": null | {keyword arguments of LoraConfig}, "adapter_from": null | folder of an adapter that is trained further,
     "ref_model": null | folder, "completions": null | how many a step samples}

Where the options name no `output_dir`, it is a folder of this process's own, and so is the cache of a reference's log-probs.

Answer::

    {"log": [{"loss": …, "grad_norm": …, …}, … one for each optimizer step],
     "measures": {"cpu_s": [… one for each measured step], "wall_s": […], "peak_bytes": [one], "cpu_s_per_1000": […, of sampled tokens],
                  "reference_cpu_s": [one: computing the reference's log-probs ahead]},
     "facts": {"loss": of the first measured step, "layer_parameters": …, "head_parameters": …,
               "sampled_tokens": [… one for each measured step]}}
"""

from __future__ import annotations

import importlib
import tempfile
import time
from typing import Any

from bench.subjects.inside import Answer, clocks, peak_bytes, serve

NAMES = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "reward": "Reward", "grpo": "GRPO", "rloo": "RLOO"}
ONLINE = ("grpo", "rloo")
PASS = {"burnish": "prepare_to_run", "trl": "_precompute_ref_logps"}
"""The method of a trainer that computes the reference's log-probs ahead."""


def run(spec: dict[str, Any]) -> Answer:
    """One training. What it writes goes with it: log-probs of a reference that an earlier one kept would be read and not computed."""
    with tempfile.TemporaryDirectory(prefix="bench-training-") as folder:
        own: dict[str, Any] = {"output_dir": f"{folder}/run"}
        if spec["library"] == "burnish" and spec["options"].get("precompute_ref_log_probs"):
            own["dataset_cache_dir"] = f"{folder}/cache"
        return train(spec | {"options": own | spec["options"]})


def train(spec: dict[str, Any]) -> Answer:
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
    clock, passes, facts = make_clock(), list[float](), parameters(model)
    more |= {"model": model, "train_dataset": spec["rows"], "processing_class": tokenizer, "callbacks": [clock]}
    trainer = make_trainer(spec["library"], spec.get("method", "sft"), spec["options"], more, passes)
    trainer.train()
    log = [numbers(line) for line in trainer.state.log_history if "grad_norm" in line]
    read = clock.readings[spec["warm_up_steps"] - 1 :] if spec["warm_up_steps"] else []
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in zip(read, read[1:], strict=False)]
    measures = {"cpu_s": [cpu for cpu, _ in steps], "wall_s": [wall for _, wall in steps], "peak_bytes": [peak_bytes()]}
    if spec["options"].get("precompute_ref_log_probs"):
        measures["reference_cpu_s"] = [sum(passes)]
    if spec.get("completions"):
        facts["sampled_tokens"] = [line["completions/mean_length"] * spec["completions"] for line in log[-len(steps) :]]
        measures["cpu_s_per_1000"] = [1000 * cpu / n for cpu, n in zip(measures["cpu_s"], facts["sampled_tokens"], strict=True)]
    return {"log": log, "measures": measures, "facts": facts | {"loss": log[spec["warm_up_steps"]]["loss"]}}


def parameters(model: Any) -> dict[str, Any]:
    """Those that every token is multiplied by, and those that a token is scored with; embeddings are looked up."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    own_head = head is not None and head.weight is not embedding
    layers = sum(one.numel() for one in model.parameters()) - embedding.numel() - (head.weight.numel() if own_head else 0)
    return {"layer_parameters": layers, "head_parameters": head.weight.numel() if head is not None else 0}


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
            self.readings.append(clocks())

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


if __name__ == "__main__":
    serve(run)
