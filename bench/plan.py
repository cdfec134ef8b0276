"""`burnish plan` against measured peaks: what was estimated from the configuration alone, beside what a training really held.

    python -m bench.plan [--only WORD ...]

Every setting trains two steps of two micro-batches in fresh processes on the CPU, through `SFTTrainer`; measured is the most memory
that a process ever held resident (of several, the largest). Models are random, of shapes given below, but for SmolLM2-135M. The exit
status is the number of settings that are more than 15% off.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import ROOT, environment

STEPS = 2
WITHIN = 0.15
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 37M, wide vocabulary": ("llama", {"vocab_size": 64000, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6,
                                             "num_attention_heads": 4, "num_key_value_heads": 2}),
    "Qwen3 60M": ("qwen3", {"vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 14, "head_dim": 64,
                            "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "GPT-2 51M": ("gpt2", {"vocab_size": 50257, "n_embd": 512, "n_layer": 8, "n_head": 8, "n_positions": 1024}),
    "Qwen3-MoE 55M": ("qwen3_moe", {"vocab_size": 32000, "hidden_size": 384, "moe_intermediate_size": 384, "num_hidden_layers": 8,
                                    "head_dim": 64, "num_attention_heads": 6, "num_key_value_heads": 2, "num_experts": 8,
                                    "num_experts_per_tok": 2, "decoder_sparse_step": 1, "tie_word_embeddings": True}),
}  # fmt: skip
SMOLLM2 = "SmolLM2 135M"
LORA = {"use_peft": True, "lora_target_modules": ["all-linear"]}


@dataclass(frozen=True, kw_only=True)
class Setting:
    model: str
    tokens: int = 512
    compute: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)
    """Of SFTConfig."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """Of ModelConfig."""
    processes: int = 1

    def __str__(self) -> str:
        said = [f"{name}={value}" if not isinstance(value, bool) else name for name, value in self.options.items()]
        more = [*said, *(["LoRA"] if self.adapter else []), *([f"{self.processes} processes"] if self.processes > 1 else [])]
        return ", ".join([self.model, self.compute, f"{self.tokens:,} tokens", *more])


LLAMA, QWEN, GPT2, MOE = SHAPES
CHECKPOINTED = {"gradient_checkpointing": True}
SETTINGS = [
    Setting(model=SMOLLM2),
    Setting(model=SMOLLM2, compute="bfloat16"),
    Setting(model=SMOLLM2, options=CHECKPOINTED, tokens=1024),
    Setting(model=SMOLLM2, adapter=LORA),
    Setting(model=LLAMA, options={"optim": "sgd"}),
    Setting(model=LLAMA, compute="bfloat16", tokens=2048),
    Setting(model=QWEN, options={"optim": "muon"}, tokens=256),
    Setting(model=QWEN, options={"optim": "adafactor"}, compute="bfloat16"),
    Setting(model=QWEN, options=CHECKPOINTED, adapter=LORA, compute="bfloat16", tokens=2048),
    Setting(model=GPT2),
    Setting(model=MOE),
    Setting(model=MOE, compute="bfloat16", options=CHECKPOINTED),
    Setting(model=LLAMA, processes=2),
    Setting(model=QWEN, processes=2, options={"fsdp": "full_shard"}),
    Setting(model=QWEN, processes=2, options={"fsdp": "shard_grad_op"}, compute="bfloat16"),
    Setting(model=SMOLLM2, processes=2, options={"fsdp": "full_shard", **CHECKPOINTED}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    parser.add_argument("--only", nargs="*", default=[], help="settings whose line holds all these words")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return train(json.loads(options.one.read_text()))
    chosen = [setting for setting in SETTINGS if all(word in str(setting) for word in options.only)]
    if not chosen:
        parser.error(f"--only {' '.join(options.only)} names no setting; there are:\n" + "\n".join(map(str, SETTINGS)))
    print(f"{'setting':<86} {'estimate':>9} {'measured':>9} {'ratio':>6}")
    off = 0
    with tempfile.TemporaryDirectory(prefix="bench-plan-") as scratch:
        for setting in chosen:
            folder = options.model.resolve() if setting.model == SMOLLM2 else make_model(setting.model, Path(scratch))
            estimated, measured = estimate(setting, folder), measure(setting, folder, Path(scratch))
            off += not abs(estimated / measured - 1) <= WITHIN
            print(f"{setting!s:<86} {estimated / 1e9:>6.2f} GB {measured / 1e9:>6.2f} GB {estimated / measured:>6.2f}", flush=True)
    print(f"more than {WITHIN:.0%} off: {off}")
    sys.exit(off)


def make_model(name: str, scratch: Path) -> Path:
    """A random model of this shape with a tokenizer of a few words, made in a process of its own."""
    folder = scratch / name.split(",")[0].replace(" ", "-")
    if not folder.exists():
        kind, shape = SHAPES[name]
        code = (
            "import sys, json\nfrom transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast\n"
            "from tokenizers import Tokenizer\nfrom tokenizers.models import WordLevel\nkind, shape, folder = json.loads(sys.argv[1])\n"
            "ends = {'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0}\n"
            "AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **ends)).save_pretrained(folder)\n"
            "names = ['<unk>', '<s>', '</s>', *map(str, range(1000))]\n"
            "words = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token='<unk>'))\n"
            "PreTrainedTokenizerFast(tokenizer_object=words, eos_token='</s>').save_pretrained(folder)"
        )
        subprocess.run([sys.executable, "-c", code, json.dumps([kind, shape, str(folder)])], check=True, stderr=subprocess.DEVNULL)
    return folder


def configs(setting: Setting, folder: Path, output: str = "runs") -> tuple[Any, Any]:
    from burnish import ModelConfig, SFTConfig

    args = {
        "output_dir": output,
        "compute_dtype": setting.compute,
        "max_steps": STEPS,
        "batch_size": 2 * setting.processes,
        "max_tokens_per_microbatch": setting.tokens,
        "max_length": setting.tokens,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **setting.options,
    }
    return ModelConfig(model_name_or_path=str(folder), compute_dtype=setting.compute, **setting.adapter), SFTConfig(**args)


def estimate(setting: Setting, folder: Path) -> int:
    import torch

    from burnish.models.memory import Placement, estimate_memory, skeleton_policy

    model, args = configs(setting, folder)
    policy = skeleton_policy(model, args, {"float32": torch.float32, "bfloat16": torch.bfloat16}[setting.compute])
    return estimate_memory(policy, args, Placement(processes=setting.processes), row=setting.tokens).total(setting.tokens)


def measure(setting: Setting, folder: Path, scratch: Path) -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        port = one.getsockname()[1]
    running = []
    for rank in range(setting.processes):
        spec = scratch / f"{rank}.json"
        spec.write_text(json.dumps({"setting": SETTINGS.index(setting), "folder": str(folder), "answer": str(scratch / f"{rank}.peak")}))
        facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": setting.processes, "LOCAL_WORLD_SIZE": setting.processes}
        facts |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "BENCH_OUTPUT": scratch / f"run-{port}"}
        own = environment(threads=1) | {name: str(value) for name, value in facts.items()}
        command = [sys.executable, "-m", "bench.plan", "--one", str(spec)]
        running.append(subprocess.Popen(command, env=own, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    said = [process.communicate()[1] for process in running]
    for process, words in zip(running, said, strict=True):
        if process.returncode:
            raise SystemExit(f"{words[-2000:]}\n\nThe training of {setting} failed, with the lines above.")
    return max(int((scratch / f"{rank}.peak").read_text()) for rank in range(setting.processes))


def train(spec: dict[str, Any]) -> None:
    from bench.subjects.inside import peak_bytes
    from burnish import SFTTrainer

    setting = SETTINGS[spec["setting"]]
    model, args = configs(setting, spec["folder"], os.environ["BENCH_OUTPUT"])
    draw = random.Random(0)
    rows = [{"input_ids": [draw.randrange(3, 1003) for _ in range(setting.tokens)]} for _ in range(args.batch_size)]
    SFTTrainer(str(spec["folder"]), args, model_config=model, train_dataset=rows).train()
    Path(spec["answer"]).write_text(str(peak_bytes()))


if __name__ == "__main__":
    main()
