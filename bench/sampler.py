"""Rollouts of SmolLM2, 16 prompts with 8 samples each, side by side: the built-in sampler, `model.generate` and, where it is there, vLLM.

    python bench/sampler.py --vllm-python .venv-vllm/bin/python

Each side samples at temperature 1 from the whole distribution, at most `--max-tokens` tokens a completion, and stops at the end of the
turn: lengths are as they fall. Sides take turns, each in a fresh process; loading and a first small call are not counted. What is
compared is the median, over rounds, of tokens a second of wall time; tokens a second of processor time and peak memory stand beside it.

`model.generate` is given all prompts at once, left-padded, with `num_return_sequences`: `--generate-prompts` takes fewer at a time. With
`--dtype bfloat16` it and vLLM hold their weights in bfloat16; ours computes in it and holds float32, as it does while it trains.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from one_run import peak_bytes
from side_by_side import processor

QUESTIONS = (
    "What is 17 + 25? Think step by step.",
    "Write a haiku about rivers and stones, and explain it.",
    "List three fruits.",
    "Explain in simple words how a bicycle stays upright while it is moving.",
    "Who wrote Hamlet, and when?",
    "Translate 'good morning, how are you?' to French, German and Spanish.",
    "Give me a short recipe for pancakes for four people.",
    "Why is the sky blue?",
    "Is 91 a prime number?",
    "Write one sentence that contains the words lamp, ocean and courage.",
    "What are the main differences between a list and a tuple in Python? Show an example of each of them.",
    "Name the planets of the solar system in order of their distance from the sun.",
    "Summarise the story of Romeo and Juliet in two sentences.",
    "A train travels 60 miles in 45 minutes. What is its average speed in miles per hour?",
    "Say hello.",
    "Write an email to my landlord that asks, politely, for the broken heating to be repaired before the weekend.",
)
Spec = dict[str, Any]


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--side":
        spec = json.loads(Path(sys.argv[2]).read_text())
        Path(sys.argv[3]).write_text(json.dumps(SIDES[spec["side"]](spec)))
        return
    options = parsed()
    sides = {"ours": sys.executable, "generate": sys.executable}
    if options.vllm_python and options.vllm_python.exists():
        sides["vllm"] = str(options.vllm_python)
    spec = {"model": str(options.model), "prompts": prompts(options.model), **vars(options)}
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(1, options.rounds + 1):
        for name, python in sides.items():
            turns[name].append(one_turn({**spec, "side": name, "seed": number}, python))
            print(f"round {number}  {describe(name, turns[name][-1:])}", flush=True)
    print(f"\n{processor()}; {options.threads} thread(s), {options.dtype}, {options.rounds} round(s)")
    for name, results in turns.items():
        print(describe(name, results))
    ratios = {name: speed(turns["ours"]) / speed(results) for name, results in turns.items() if name != "ours"}
    print("; ".join(f"ours / {name}: {ratio:.2f}" for name, ratio in ratios.items()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    record = {"options": shown, "turns": turns, "ratios": ratios, "processor": processor(), "python": platform.python_version()}
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"all numbers are in {options.output}")


def parsed() -> argparse.Namespace:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    found.add_argument("--vllm-python", type=Path, default=None, help="of an environment with vLLM; left out where it is not there")
    found.add_argument("--rounds", type=int, default=2)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--samples", type=int, default=8)
    found.add_argument("--max-tokens", type=int, default=128)
    found.add_argument("--generate-prompts", type=int, default=len(QUESTIONS), help="prompts that model.generate is given at once")
    found.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    found.add_argument("--output", type=Path, default=Path("runs/bench-sampler.json"))
    return found.parse_args()


def prompts(model: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [tokenizer.apply_chat_template([{"role": "user", "content": one}], add_generation_prompt=True)["input_ids"] for one in QUESTIONS]


def one_turn(spec: Spec, python: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        question, answer = Path(scratch, "spec.json"), Path(scratch, "result.json")
        question.write_text(json.dumps(spec, default=str))
        environment = os.environ | {"OMP_NUM_THREADS": str(spec["threads"]), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [python, __file__, "--side", str(question), str(answer)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
            raise SystemExit(f"{last}\n\nThe side {spec['side']} failed, with the lines above.")
        return json.loads(answer.read_text())


def speed(results: list[dict[str, Any]]) -> float:
    return median(one["tokens"] / one["wall_s"] for one in results)


def describe(name: str, results: list[dict[str, Any]]) -> str:
    cpu, peak = median(one["tokens"] / one["cpu_s"] for one in results), median(one["peak_bytes"] for one in results)
    tokens, completions = (results[-1][key] for key in ("tokens", "completions"))
    rates = f"{speed(results):6.1f} tokens/s  {cpu:6.1f} tokens/CPU s"
    return f"{name:<10} {rates}  {peak / 1e9:5.2f} GB peak  {tokens:,} tokens, {tokens / completions:.0f} a completion"


def measured(lengths: Any) -> dict[str, Any]:
    """Runs `lengths`, which gives how many tokens each completion has."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = list(lengths())
    after = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return {"tokens": sum(found), "completions": len(found), "peak_bytes": peak_bytes(), **after}


def loaded(spec: Spec, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(spec["threads"])
    return AutoModelForCausalLM.from_pretrained(spec["model"], dtype=getattr(torch, dtype)).eval()


def ours(spec: Spec) -> dict[str, Any]:
    import numpy as np
    import torch

    from burnish.models.memory import give_back_freed_blocks
    from burnish.models.policy import Policy
    from burnish.models.probe import probe
    from burnish.rollout.local import LocalSampler
    from burnish.rollout.sampler import Request, Sampling

    give_back_freed_blocks()
    policy = Policy(loaded(spec, "float32"), compute_dtype=getattr(torch, spec["dtype"])).eval()
    probe(policy, wanted="tree")
    sampler = LocalSampler(policy, text=str)
    sampling = Sampling(stop_token_ids=(policy.causal_model.config.eos_token_id,), seed=spec["seed"])

    def requests(count: int, tokens: int) -> list[Request]:
        named = list(enumerate(np.array(ids) for ids in spec["prompts"][:count]))
        return [Request(prompt_id=str(i), sample=j, token_ids=ids, max_tokens=tokens) for i, ids in named for j in range(spec["samples"])]

    list(sampler.sample(requests(1, 4), sampling))
    return measured(lambda: (len(one.token_ids) for one in sampler.sample(requests(len(spec["prompts"]), spec["max_tokens"]), sampling)))


def generate(spec: Spec) -> dict[str, Any]:
    import torch

    model = loaded(spec, spec["dtype"])
    eos = model.config.eos_token_id
    torch.manual_seed(spec["seed"])

    def lengths(prompts: list[list[int]], tokens: int) -> list[int]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[eos] * (longest - len(one)) + one for one in prompts])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
        options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "eos_token_id": eos, "pad_token_id": eos}
        with torch.no_grad():
            rows = model.generate(ids, attention_mask=mask, num_return_sequences=spec["samples"], max_new_tokens=tokens, **options)
        return [row.index(eos) + 1 if eos in row else len(row) for row in rows[:, longest:].tolist()]

    lengths(spec["prompts"][:1], 4)
    step, prompts = spec["generate_prompts"], spec["prompts"]
    return measured(lambda: [one for i in range(0, len(prompts), step) for one in lengths(prompts[i : i + step], spec["max_tokens"])])


def vllm(spec: Spec) -> dict[str, Any]:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    import torch
    from vllm import LLM, SamplingParams

    torch.set_num_threads(spec["threads"])
    engine = LLM(model=spec["model"], dtype=spec["dtype"], max_model_len=1024, max_num_seqs=256)

    def lengths(prompts: list[list[int]], tokens: int) -> list[int]:
        # a seed for each request is refused on a CPU
        params = SamplingParams(n=spec["samples"], temperature=1.0, top_p=1.0, top_k=0, max_tokens=tokens, detokenize=False)
        found = engine.generate([{"prompt_token_ids": one} for one in prompts], params, use_tqdm=False)
        return [len(one.token_ids) for prompt in found for one in prompt.outputs]

    lengths(spec["prompts"][:1], 4)
    return measured(lambda: lengths(spec["prompts"], spec["max_tokens"]))


SIDES = {"ours": ours, "generate": generate, "vllm": vllm}


if __name__ == "__main__":
    main()
