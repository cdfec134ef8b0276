"""Old spellings: what becomes of the options of TRL and transformers that are not options here.

`RENAMED` is the whole story, one line for each name, applied alike to constructor arguments, YAML keys and flags. A name whose
meaning exists here becomes the option that has it. A name without counterpart is accepted at the values that ask for nothing
(mostly its old default), accepted with a note where it could only ever have changed speed or memory, and otherwise refused with
what to use instead.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from burnish.config.values import ConfigError, conform, from_json

Together = Callable[[Mapping[str, Any], int], tuple[Any, str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one old spelling becomes. Made by `becomes`, `together`, `only` and `harmless`."""

    unset: tuple[Any, ...] = ()
    """Values that say nothing."""
    new: str | None = None
    how: Callable[[Any], Any] = lambda value: value
    together: Together | None = None
    """Where several old options make one new one: (all options as said, devices) → (value or None, note or None)."""
    note: str | None = None
    instead: str | None = None
    deprecated: str | None = None
    """An old name of Burnish's own: the whole sentence about it, from `burnish.deprecated`."""

    def apply(self, name: str, said: Mapping[str, Any], devices: int) -> tuple[dict[str, Any], str | None]:
        """New options, and a note for the user. Raises ConfigError where the value is refused."""
        value = said[name].value if isinstance(said[name], Enum) else said[name]
        if value in self.unset:
            return {}, None
        if self.together and self.new:
            became, note = self.together(said, devices)
            return ({} if became is None else {self.new: became}), note
        if self.instead:
            raise ConfigError(f"{name}={value!r} is refused: {self.instead}.")
        note = f"{name}={value!r} changes nothing: {self.note}." if self.note else self.deprecated
        if self.deprecated:
            warnings.warn(self.deprecated, DeprecationWarning, stacklevel=5)  # the line that makes the configuration
        return ({self.new: self.how(value)} if self.new else {}), note


def becomes(new: str, how: Callable[[Any], Any] | Mapping[Any, Any] = lambda value: value, unset: tuple[Any, ...] = ()) -> Rule:
    """The same meaning under the name `new`; `how` turns old values into new ones (a mapping leaves others as they are)."""
    if not isinstance(how, Mapping):
        return Rule(new=new, how=how, unset=unset)
    pairs = list(how.items())
    return Rule(new=new, how=lambda value: next((to for old, to in pairs if value is old or value == old), value), unset=unset)


def only(*values: Any, instead: str) -> Rule:
    """Accepted at these values, refused at others."""
    return Rule(unset=values, instead=instead)


def harmless(*silent: Any, note: str) -> Rule:
    """Accepted at every value: it cannot change what is trained. `silent` values need no note."""
    return Rule(unset=silent, note=note)


def whole(said: Mapping[str, Any], name: str, default: int) -> int:
    """An old option that is an integer of at least 1. Raises ConfigError."""
    try:
        number = conform(said.get(name, default), int)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} must be an integer of at least 1, not {said[name]!r}.")
    return number


LOUD, QUIET = ("detail", "debug", "info"), ("warning", "error", "critical")
"""transformers' levels of logging, at which a run tells how it goes on, or does not."""


def _batch_size(said: Mapping[str, Any], devices: int) -> tuple[int, str]:
    rows, times = whole(said, "per_device_train_batch_size", 8), whole(said, "gradient_accumulation_steps", 1)
    product = f"per_device_train_batch_size={rows} × gradient_accumulation_steps={times} × {devices} device{'s' if devices > 1 else ''}"
    return rows * times * devices, f"{product} is batch_size={rows * times * devices}; max_tokens_per_microbatch bounds the memory."


def _compute_dtype(said: Mapping[str, Any], devices: int) -> tuple[str | None, None]:
    for name in ("bf16", "fp16"):
        if said.get(name) not in (None, True, False):
            raise ConfigError(f"{name} must be True, False or None, not {said[name]!r}.")
    if said.get("fp16"):
        raise ConfigError("fp16=True is refused: float16 needs its loss scaled, which is not done here; use bf16=True or bf16=False.")
    return {True: "bfloat16", False: "float32", None: None}[said.get("bf16")], None


def _trackers(value: Any) -> list[Any]:
    return [name for name in ([value] if isinstance(value, str) else value or []) if name != "none"]


def _key_values(value: Any) -> Any:
    """transformers' "a=1, b=2.5" as a mapping."""
    if not isinstance(value, str) or "=" not in value:
        return value
    pairs = [pair.partition("=") for pair in value.split(",")]
    return {key.strip(): from_json(text.strip()) for key, _, text in pairs}


def _sharding(value: Any) -> Any:
    """transformers' words about FSDP. Layers are always wrapped one by one, and offloading has an option of its own."""
    said = value.split() if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    kinds = ["full_shard" if word is True else word for word in said if word != "auto_wrap"]
    if "offload" in kinds:
        raise ConfigError(f"fsdp={value!r} is refused: say fsdp_cpu_offload=True beside fsdp='full_shard'.")
    return kinds[0] if len(kinds) == 1 else value


def _modules(value: Any) -> Any:
    """A lone module's name as a list: PEFT takes a string for a pattern of whole paths, which a name never matches."""
    return [value] if isinstance(value, str) and value != "all-linear" and not set(value) & set("*+?^$|()[]\\") else value


def _attention(said: Mapping[str, Any], devices: int) -> tuple[Any, str | None]:
    name = said["attn_implementation"]
    if name in ("eager", "sdpa", "flash_attention_2", "flash_attention_3"):
        return None, f"attn_implementation={name!r} changes nothing: attention runs over token trees, by the fastest kernel of the device."
    return name, None


def _losses(value: Any) -> Any:
    """DPO's losses, one of which had another name."""
    if isinstance(value, list | tuple):
        return [_losses(name) for name in value]
    return "aot" if value == "aot_pair" else value


def refusing(new: str, instead: Mapping[Any, str]) -> Rule:
    """The option of that name, with some of its values refused in a sentence of their own."""

    def how(value: Any) -> Any:
        if isinstance(value, str) and value in instead:
            raise ConfigError(f"{new}={value!r} is refused: {instead[value]}.")
        return value

    return Rule(new=new, how=how)


def _optimizer(value: Any) -> Any:
    """transformers has forty; each that is not here has the same cure."""
    if value in ("adamw_torch", "adamw_torch_fused"):
        return "adamw"
    if isinstance(value, str) and value not in OPTIMIZERS:
        raise ConfigError(f"optim={value!r} is refused: there are {', '.join(OPTIMIZERS)}; for another one, {OWN_OPTIMIZER}.")
    return value


def _share(ratio: Any) -> Any:
    if isinstance(ratio, int | float) and not isinstance(ratio, bool) and 0 <= ratio < 1:
        return ratio
    raise ConfigError(f"warmup_ratio must be a number of at least 0 and below 1, not {ratio!r}.")


NO_PADDING = "nothing is ever padded, and every micro-batch is packed so that examples never see each other"
PACKED = f"{NO_PADDING}; batch_size counts examples, not packed rows"
NO_LOADER = "there is no data loader; rows are tokenised ahead, by dataset_num_proc processes"
WHOLE_ROWS = "prompts and completions are not cut apart from each other; use max_length, which bounds both together, and truncation_mode"
NO_STORED_LOGITS = "the logits are never stored"
NOT_COMPILED = "the model is not compiled"
LEVEL = "what a run says does not go through logging; other libraries' levels are set with Python's logging"
NO_UDM = "answers are not weighed by the density of their prompts; weigh or select rows beforehand"
BUDGET = "evaluation fills micro-batches by max_tokens_per_microbatch"
NO_LOGITS = "the logits are never stored, so there is nothing to save"
SHARDING = "models are sharded by FSDP2; use fsdp='full_shard', fsdp_cpu_offload and fsdp_reduce_dtype"
HUB = "nothing is uploaded; save the model and upload output_dir yourself"
TRANSPORT = "how processes talk to each other is not an option; leave it out"
FULL_EVAL = "evaluation runs as training does; use compute_dtype"
PLACE = "the device is chosen by what is visible; set CUDA_VISIBLE_DEVICES='' to use the CPU"
CHECKPOINTING = "activations are always recomputed without re-entrance; leave it out"
BALANCED = "micro-batches are filled by max_tokens_per_microbatch, whatever the lengths of rows; use 'random'"
OPTIMIZERS = ("adamw", "adafactor", "sgd", "muon")
BY_METRIC = "it needs a metric at every step, which the loop has not; choose a schedule of the step's number"
OWN_SCHEDULE = "build the schedule yourself and pass it to the trainer as optimizers=(optimizer, scheduler)"
SAVE_BEST = "use 'steps' or 'epoch' with load_best_model_at_end; save_total_limit keeps the best checkpoint and the last"
OWN_OPTIMIZER = "build the optimizer yourself and pass it to the trainer as optimizers=(optimizer, scheduler)"
EVERY_N = "give logging_steps, the number of steps between two lines"

RENAMED: dict[str, dict[str, Rule]] = {
    "LoadConfig": {
        "bf16": Rule(new="compute_dtype", together=_compute_dtype),
        "fp16": Rule(new="compute_dtype", together=_compute_dtype),
    },
    "ModelConfig": {
        "torch_dtype": becomes("dtype", unset=(None,)),
        "dtype": becomes("dtype", unset=(None,)),
        "attn_implementation": Rule(new="attn_implementation", together=_attention),
        "lora_target_modules": becomes("lora_target_modules", _modules),
        "lora_task_type": harmless("CAUSAL_LM", note="the method knows its task type"),
        "lora_target_parameters": only(None, instead="use lora_target_modules"),
        "bnb_4bit_quant_storage": only(None, instead="weights of 4 bits are stored as bitsandbytes stores them by default; leave it out"),
    },
    "DataConfig": {
        "ignore_bias_buffers": only(False, instead="there is nothing to ignore; leave it out"),
        "streaming": becomes("dataset_streaming", unset=(False,)),
        "datasets": becomes("datasets", unset=([],)),
    },
    "DatasetSource": {
        **dict.fromkeys(("data_dir", "data_files"), only(None, instead="give the file or the folder as path")),
        "fraction": only(None, instead="use weight, the source's share of the mixture"),
    },
    "TrainConfig": {
        # how much at a time
        "per_device_train_batch_size": Rule(new="batch_size", together=_batch_size),
        "gradient_accumulation_steps": Rule(new="batch_size", together=_batch_size),
        "bf16_full_eval": only(False, instead=FULL_EVAL),
        "fp16_full_eval": only(False, instead=FULL_EVAL),
        "tf32": only(None, False, instead="call torch.set_float32_matmul_precision('high') before training"),
        "auto_find_batch_size": only(False, instead="batch_size is exact, and max_tokens_per_microbatch bounds the memory"),
        "average_tokens_across_devices": only(True, instead="the loss is always divided by the trained tokens of all devices"),
        "max_grad_norm": becomes("max_grad_norm", {None: 0.0}),
        # optimizer and schedule
        "optim": becomes("optim", _optimizer),
        "lr_scheduler_type": refusing(
            "lr_scheduler_type",
            {"cosine_warmup_with_min_lr": OWN_SCHEDULE, **dict.fromkeys(("reduce_lr_on_plateau", "greedy"), BY_METRIC)},
        ),
        "optim_args": becomes("optim_args", _key_values),
        "optim_target_modules": only(None, instead=OWN_OPTIMIZER),
        "warmup_ratio": becomes("warmup_steps", _share, unset=(None, 0)),
        "label_smoothing_factor": only(0.0, instead="labels are not smoothed; leave it at 0"),
        "neftune_noise_alpha": only(None, instead="no noise is added to embeddings; leave it out"),
        # memory and speed
        "gradient_checkpointing": becomes("gradient_checkpointing", unset=(None,)),
        "activation_checkpointing": becomes("gradient_checkpointing", unset=(None,)),
        "gradient_checkpointing_kwargs": only(None, {}, {"use_reentrant": False}, instead=CHECKPOINTING),
        "activation_checkpointing_kwargs": only(None, {}, {"use_reentrant": False}, instead=CHECKPOINTING),
        "activation_offloading": only(False, instead="use gradient_checkpointing, or a smaller max_tokens_per_microbatch"),
        "torch_empty_cache_steps": harmless(None, note="max_tokens_per_microbatch bounds the memory"),
        "torch_compile": harmless(False, None, note=NOT_COMPILED),
        "torch_compile_backend": harmless(None, note=NOT_COMPILED),
        "torch_compile_mode": harmless(None, note=NOT_COMPILED),
        "use_liger_kernel": harmless(False, note=NO_STORED_LOGITS),
        "liger_kernel_config": harmless(None, note=NO_STORED_LOGITS),
        "use_cache": only(False, instead="training keeps no cache; leave it out"),
        # data order
        "data_seed": only(None, instead="the order of the data follows seed"),
        "group_by_length": only(False, instead="nothing is padded, so lengths need no grouping; leave it out"),
        "length_column_name": only("length", instead="lengths are counted, not read from a column; leave it out"),
        "train_sampling_strategy": refusing(
            "train_sampling_strategy",
            {
                "group_by_length": "nothing is padded, so lengths need no grouping; use 'random'",
                "batch_rebalance": BALANCED,
            },
        ),
        "shuffle_dataset": Rule(new="train_sampling_strategy", how=lambda shuffle: "random" if shuffle else "sequential", unset=(False,)),
        "dataloader_drop_last": only(False, instead="the last examples of an epoch are always trained on; leave it out"),
        "dataloader_num_workers": harmless(0, note=NO_LOADER),
        "dataloader_pin_memory": harmless(True, note=NO_LOADER),
        "dataloader_persistent_workers": harmless(False, note=NO_LOADER),
        "dataloader_prefetch_factor": harmless(None, note=NO_LOADER),
        "dataloader_multiprocessing_context": harmless(None, note=NO_LOADER),
        "dataloader_in_order": only(True, instead="the order of the data is a function of the seed; leave it out"),
        "remove_unused_columns": harmless(True, False, note="columns that no method reads are never loaded"),
        "label_names": only(None, instead="the trained tokens are found from the rows; leave it out"),
        # evaluation
        "evaluation_strategy": becomes("eval_strategy"),
        "eval_delay": only(0, instead="evaluations begin with the first eval_steps; leave it at 0"),
        "per_device_eval_batch_size": harmless(8, note=BUDGET),
        "eval_accumulation_steps": harmless(None, note=BUDGET),
        "eval_do_concat_batches": only(True, instead="metrics are sums over all batches; leave it out"),
        "eval_use_gather_object": only(False, instead="metrics are sums over all processes; leave it out"),
        "batch_eval_metrics": only(False, instead="metrics are sums over all batches; leave it out"),
        "include_for_metrics": only([], instead="compute_metrics is given no inputs; leave it out"),
        "prediction_loss_only": harmless(False, True, note=NO_LOGITS),
        # saving and resuming
        "output_dir": becomes("output_dir", unset=(None,)),
        "resume_from_checkpoint": becomes("resume_from_checkpoint", {None: "auto", True: "auto", False: "never"}),
        "save_strategy": refusing("save_strategy", {"best": SAVE_BEST}),
        "save_only_model": only(False, instead="a checkpoint always holds all that resuming needs; the model alone is saved at the end"),
        "save_on_each_node": only(False, instead="checkpoints are written once; leave it out"),
        "save_safetensors": only(True, instead="weights are always saved as safetensors"),
        "enable_jit_checkpoint": only(False, instead="use save_steps"),
        "ignore_data_skip": only(False, instead="a resumed run continues the data where it stopped; leave it out"),
        "restore_callback_states_from_checkpoint": harmless(False, True, note="callbacks' states are always restored"),
        "push_to_hub": only(False, instead=HUB),
        **dict.fromkeys(("hub_token", "hub_private_repo", "hub_model_id", "hub_revision"), only(None, instead=HUB)),
        "hub_strategy": only("every_save", instead=HUB),
        "hub_always_push": only(False, instead=HUB),
        # reports
        "report_to": becomes("report_to", _trackers),
        "logging_strategy": only("steps", instead=EVERY_N),
        "logging_dir": harmless(None, note="metrics are written into output_dir"),
        "logging_nan_inf_filter": harmless(True, False, note="a loss that is not finite stops the run"),
        "log_on_each_node": harmless(True, False, note="only the main process prints"),
        "log_level": becomes("quiet", dict.fromkeys(LOUD, False) | dict.fromkeys(QUIET, True), unset=("passive",)),
        "log_level_replica": harmless("warning", note=LEVEL),
        "include_num_input_tokens_seen": harmless("no", False, note="tokens are always counted"),
        "include_tokens_per_second": harmless(False, True, note="tokens per second are always logged"),
        "project": only("huggingface", instead="name the project in the tracker's environment variable, such as WANDB_PROJECT"),
        **dict.fromkeys(
            ("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
            only(None, instead="trackio is started with the run's name alone; leave it out"),
        ),
        "skip_memory_metrics": harmless(True, False, note="memory is always reported"),
        "debug": only("", [], instead="use PyTorch's own anomaly detection"),
        # machines
        "fsdp": becomes("fsdp", _sharding, unset=(None, False, "", [])),
        "fsdp_config": only(None, {}, instead=SHARDING),
        "deepspeed": only(None, instead=SHARDING),
        "parallelism_config": only(None, instead=SHARDING),
        "accelerator_config": only(None, {}, instead="accelerate is not used; leave it out"),
        "use_cpu": only(False, instead=PLACE),
        "no_cuda": only(False, instead=PLACE),
        "local_rank": only(-1, 0, instead="torchrun says it in the environment; leave it out"),
        "ddp_find_unused_parameters": only(None, False, instead="every trained weight must receive a gradient"),
        **dict.fromkeys(("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend"), only(None, instead=TRANSPORT)),
        "full_determinism": only(False, instead="call torch.use_deterministic_algorithms(True) before training"),
        **dict.fromkeys(("do_train", "do_eval", "do_predict"), harmless(True, False, note="methods are called, not announced")),
    },
    "RowsConfig": {
        "max_seq_length": becomes("max_length"),
        **dict.fromkeys(("max_prompt_length", "max_completion_length"), only(None, instead=WHOLE_ROWS)),
        "padding_free": harmless(note=NO_PADDING),
        "pad_to_multiple_of": harmless("auto", None, note=NO_PADDING),
        "pad_token": harmless(None, note=NO_PADDING),
        "padding_value": harmless(None, note=NO_PADDING),
        "label_pad_token_id": harmless(-100, note=NO_PADDING),
        "is_encoder_decoder": only(None, False, instead="models are decoders; leave it out"),
        "generate_during_eval": only(False, instead="evaluation generates nothing; generate from the saved model"),
        "tools": only(None, instead="give each row its tools, in a column of that name"),
        "use_liger_loss": harmless(False, note=NO_STORED_LOGITS),
        "use_logits_to_keep": harmless(False, note=NO_STORED_LOGITS),
        "use_num_logits_to_keep": harmless(False, note=NO_STORED_LOGITS),
        "base_model_attribute_name": harmless("model", note="the parts of a model are found without it"),
    },
    "KnownReferenceConfig": {
        "precompute_ref_batch_size": harmless(None, note="the reference fills micro-batches by max_tokens_per_microbatch"),
    },
    "ReferenceConfig": {
        "force_use_ref_model": harmless(False, note="a reference that is given is always used, with an adapter, too"),
        "ref_model_init_kwargs": only(None, {}, instead="the reference is loaded as the model is; use model_init_kwargs"),
        "reference_free": only(False, instead="CPO is DPO without a reference; use CPOConfig(cpo_alpha=0)"),
        **dict.fromkeys(
            ("model_adapter_name", "ref_adapter_name"),
            only(None, instead="the reference is the adapter as it is at the start, or ref_model_name_or_path; leave it out"),
        ),
    },
    "SFTConfig": {
        "loss_type": becomes("loss_type", {"chunked_nll": "nll"}),
        "packing": harmless(note=PACKED),
        "eval_packing": harmless(None, note=PACKED),
        "packing_strategy": only("bfd", instead="packing never cuts or joins examples, and truncation_mode says what becomes of long ones"),
        "dataset_kwargs": only(
            None, {}, {"skip_prepare_dataset": False}, instead="rows with input_ids are recognised by that column and taken as they are"
        ),
    },
    "DPOConfig": {
        "loss_type": becomes("loss_type", _losses),
        "rpo_alpha": only(None, instead="use loss_type=['sigmoid', 'sft'] with loss_weights=[1.0, rpo_alpha]"),
    },
    "BCOConfig": {
        "prompt_sample_size": only(1024, instead=NO_UDM),
        "min_density_ratio": only(0.5, instead=NO_UDM),
        "max_density_ratio": only(10.0, instead=NO_UDM),
    },
}
