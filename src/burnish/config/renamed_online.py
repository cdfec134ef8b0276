"""Old spellings of the methods that sample: beside `RENAMED`, in the same form."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from burnish.config.renamed import RENAMED, Rule, becomes, harmless, only, whole
from burnish.config.values import ConfigError

SAMPLER = "the built-in sampler batches continuously, without padding and on its own keys and values"
KEPT = "every sample is kept in output_dir"


def _prompts(said: Mapping[str, Any], devices: int, *, generations: int) -> tuple[int, str]:
    """TRL counts completions, and here prompts are counted."""
    rows, times = whole(said, "per_device_train_batch_size", 8), whole(said, "gradient_accumulation_steps", 1)
    n = whole(said, "num_generations", generations)
    completions = rows * times * devices
    product = f"per_device_train_batch_size={rows} × gradient_accumulation_steps={times} × {devices} device{'s' if devices > 1 else ''}"
    if completions % n:
        raise ConfigError(f"{product} is {completions} completions, which are no whole groups of num_generations={n}; give batch_size.")
    return completions // n, f"{product} is {completions} completions of batch_size={completions // n} prompts."


def _steps(said: Mapping[str, Any], devices: int) -> tuple[int | None, None]:
    """TRL counts what it accumulates, or completions; here optimizer steps are counted."""
    times = whole(said, "gradient_accumulation_steps", 1)
    if said.get("generation_batch_size") is not None:
        name, completions = "generation_batch_size", whole(said, "batch_size", 8) * whole(said, "num_generations", 8)
        if {"per_device_train_batch_size", "gradient_accumulation_steps"} & set(said):
            completions = whole(said, "per_device_train_batch_size", 8) * times * devices
        steps = whole(said, name, 1) / completions
    elif said.get("steps_per_generation") is not None:
        name = "steps_per_generation"
        steps = whole(said, name, 1) / times
    else:
        return None, None
    if steps != int(steps):
        raise ConfigError(f"{name}={said[name]} is {steps:g} optimizer steps, which is no whole number; give batch_size alone.")
    return int(steps), None


def _mode(said: Mapping[str, Any], devices: int) -> tuple[None, None]:
    """Where vLLM is not used, its mode says nothing."""
    if said.get("use_vllm") and said["vllm_mode"] != "server":
        raise ConfigError(f"vllm_mode={said['vllm_mode']!r} is refused: {OWN_PROCESS}.")
    return None, None


def _batch(generations: int) -> dict[str, Rule]:
    rule = Rule(new="batch_size", together=partial(_prompts, generations=generations))
    return {"per_device_train_batch_size": rule, "gradient_accumulation_steps": rule}


OWN_PROCESS = "the server is a process of its own; start it (docs/vllm.md), and leave this out"
OWN_OPTIONS = "use temperature, top_k, top_p, min_p, repetition_penalty and stop"

ONLINE: dict[str, dict[str, Rule]] = {
    "OnlineConfig": {
        **_batch(8),
        "steps_per_generation": Rule(new="steps_per_generation", together=_steps),
        "generation_batch_size": Rule(new="steps_per_generation", together=_steps),
        "shuffle_dataset": becomes("train_sampling_strategy", {True: "random", False: "sequential", None: "random"}),
        "pad_to_multiple_of": harmless("auto", None, note="nothing is ever padded"),
        "generation_kwargs": only(None, {}, instead=OWN_OPTIONS),
        "cache_implementation": harmless(None, note=SAMPLER),
        "ds3_gather_for_generation": harmless(True, False, note=SAMPLER),
        "use_transformers_continuous_batching": harmless(False, note=SAMPLER),
        "transformers_continuous_batching_config": harmless(None, note=SAMPLER),
        "use_transformers_paged": harmless(False, note=SAMPLER),
        "cast_lm_head_to_fp32": harmless(False, note="log-probs are always computed in float32"),
        "use_liger_kernel": harmless(False, note="the logits are never stored"),
        "use_liger_loss": harmless(False, note="the logits are never stored"),
        "log_unique_prompts": harmless(False, note=KEPT),
        "log_multimodal": harmless(True, False, note="there are no images"),
        "log_completions_hub_repo": only(None, instead="nothing is uploaded; every sample is in output_dir"),
        "max_seq_length": only(None, instead="use max_prompt_length and max_completion_length"),
        "max_length": only(None, instead="use max_prompt_length and max_completion_length"),
        "dataset_num_proc": harmless(None, note="prompts are tokenised as they are drawn"),
        "num_generations": becomes("num_generations", unset=(None,)),
        "max_completion_length": becomes("max_completion_length", unset=(None,)),
        "precompute_ref_log_probs": only(False, instead="completions are not known ahead; leave it out"),
        "ref_model_init_kwargs": only(None, {}, instead="the reference is loaded as the model is; use model_init_kwargs"),
    },
    "VLLMConfig": {
        "vllm_mode": Rule(new="use_vllm", together=_mode, unset=("server",)),
        "vllm_server_host": becomes("vllm_server_host", {"0.0.0.0": "127.0.0.1"}),  # where a server listens is no address to ask
        "vllm_model_impl": only("vllm", instead="say it to the server: --model-impl"),
        "vllm_enable_sleep_mode": only(False, instead="the server is a process of its own; leave it out"),
        "vllm_structured_outputs_regex": only(None, instead="completions are not constrained; leave it out"),
        "vllm_group_port": harmless(51216, note="weights reach the server by path"),
        "vllm_gpu_memory_utilization": only(0.3, instead="say it to the server: --gpu-memory-utilization"),
        "vllm_max_model_length": only(None, instead="say it to the server: --max-model-len"),
        "vllm_tensor_parallel_size": only(1, instead="say it to the server: --tensor-parallel-size"),
        "vllm_importance_sampling_cap": becomes("vllm_importance_sampling_clip_max", unset=(None,)),
    },
    "GRPOConfig": {
        "scale_rewards": becomes("scale_rewards", {True: "group", False: "none"}),
    },
    "RLOOConfig": _batch(2),
}
SPELLINGS = RENAMED | ONLINE
"""Of every configuration class."""
