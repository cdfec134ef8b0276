"""Old spellings, name by name: what each becomes, what it is refused with, and that every default of TRL 1.16 is taken."""

import pytest

from burnish.config import ConfigError, DataConfig, ModelConfig, SFTConfig

# every option of TRL 1.16's SFTConfig (with transformers 5.23) and its default
TRL_SFT_DEFAULTS = {
    "output_dir": None,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "learning_rate": 2e-05,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": None,
    "warmup_steps": 0,
    "optim": "adamw_torch_fused",
    "optim_args": None,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-08,
    "optim_target_modules": None,
    "gradient_accumulation_steps": 1,
    "average_tokens_across_devices": True,
    "max_grad_norm": 1.0,
    "label_smoothing_factor": 0.0,
    "bf16": None,
    "fp16": False,
    "bf16_full_eval": False,
    "fp16_full_eval": False,
    "tf32": None,
    "activation_checkpointing": None,
    "activation_checkpointing_kwargs": None,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": None,
    "torch_compile": False,
    "torch_compile_backend": None,
    "torch_compile_mode": None,
    "use_liger_kernel": False,
    "liger_kernel_config": None,
    "use_cache": False,
    "neftune_noise_alpha": None,
    "torch_empty_cache_steps": None,
    "auto_find_batch_size": False,
    "logging_strategy": "steps",
    "logging_steps": 10,
    "logging_first_step": False,
    "log_on_each_node": True,
    "logging_nan_inf_filter": True,
    "include_num_input_tokens_seen": "no",
    "log_level": "passive",
    "log_level_replica": "warning",
    "disable_tqdm": None,
    "report_to": "none",
    "run_name": None,
    "project": "huggingface",
    "trackio_space_id": None,
    "trackio_bucket_id": None,
    "trackio_static_space_id": None,
    "eval_strategy": "no",
    "eval_steps": None,
    "eval_delay": 0,
    "per_device_eval_batch_size": 8,
    "prediction_loss_only": False,
    "eval_on_start": False,
    "eval_do_concat_batches": True,
    "eval_use_gather_object": False,
    "eval_accumulation_steps": None,
    "include_for_metrics": [],
    "batch_eval_metrics": False,
    "save_only_model": False,
    "save_strategy": "steps",
    "save_steps": 500,
    "save_on_each_node": False,
    "save_total_limit": None,
    "enable_jit_checkpoint": False,
    "push_to_hub": False,
    "hub_token": None,
    "hub_private_repo": None,
    "hub_model_id": None,
    "hub_strategy": "every_save",
    "hub_always_push": False,
    "hub_revision": None,
    "load_best_model_at_end": False,
    "metric_for_best_model": None,
    "greater_is_better": None,
    "ignore_data_skip": False,
    "restore_callback_states_from_checkpoint": False,
    "full_determinism": False,
    "seed": 42,
    "data_seed": None,
    "use_cpu": False,
    "accelerator_config": None,
    "parallelism_config": None,
    "dataloader_drop_last": False,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": True,
    "dataloader_persistent_workers": False,
    "dataloader_prefetch_factor": None,
    "dataloader_multiprocessing_context": None,
    "dataloader_in_order": True,
    "remove_unused_columns": True,
    "label_names": None,
    "train_sampling_strategy": "random",
    "length_column_name": "length",
    "ddp_find_unused_parameters": None,
    "ddp_bucket_cap_mb": None,
    "ddp_broadcast_buffers": None,
    "ddp_static_graph": None,
    "ddp_backend": None,
    "fsdp": None,
    "fsdp_config": None,
    "deepspeed": None,
    "debug": "",
    "skip_memory_metrics": True,
    "do_train": False,
    "do_eval": False,
    "do_predict": False,
    "resume_from_checkpoint": None,
    "local_rank": -1,
    "model_init_kwargs": None,
    "trust_remote_code": False,
    "router_aux_loss_coef": None,
    "chat_template_path": None,
    "dataset_text_field": "text",
    "dataset_kwargs": None,
    "dataset_num_proc": None,
    "eos_token": None,
    "max_length": 1024,
    "truncation_mode": "keep_start",
    "shuffle_dataset": False,
    "packing": False,
    "packing_strategy": "bfd",
    "padding_free": False,
    "pad_to_multiple_of": "auto",
    "eval_packing": None,
    "completion_only_loss": None,
    "assistant_only_loss": False,
    "loss_type": "nll",
    "activation_offloading": False,
    "pad_token": None,
}
TRL_MODEL_DEFAULTS = {
    "model_name_or_path": None,
    "model_revision": "main",
    "dtype": "float32",
    "attn_implementation": None,
    "use_peft": False,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": None,
    "lora_target_parameters": None,
    "lora_modules_to_save": None,
    "lora_task_type": "CAUSAL_LM",
    "use_rslora": False,
    "use_dora": False,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": False,
    "bnb_4bit_quant_storage": None,
}
TRL_SCRIPT_DEFAULTS = {
    "dataset_name": None,
    "dataset_config": None,
    "dataset_train_split": "train",
    "dataset_test_split": "test",
    "dataset_streaming": False,
    "ignore_bias_buffers": False,
}
ALONE = "nothing is ever padded, and every micro-batch is packed so that examples never see each other"
PACKED = f"{ALONE}; batch_size counts examples, not packed rows."
BUDGET = "max_tokens_per_microbatch bounds the memory."


def test_a_script_that_passes_every_default_of_trl_runs():
    args = SFTConfig(**TRL_SFT_DEFAULTS)
    assert args == SFTConfig(gradient_checkpointing=True, truncation_mode="keep_start")
    assert args.notes == (
        f"per_device_train_batch_size=8 × gradient_accumulation_steps=1 × 1 device is batch_size=8; {BUDGET}",
        f"packing=False changes nothing: {PACKED}",
        f"padding_free=False changes nothing: {ALONE}.",
    )
    assert ModelConfig(**TRL_MODEL_DEFAULTS) == ModelConfig(dtype="float32")
    assert DataConfig(**TRL_SCRIPT_DEFAULTS) == DataConfig(dataset_test_split="test")


BECOMES = [
    ({"max_seq_length": 512}, {"max_length": 512}),
    ({"bf16": True}, {"compute_dtype": "bfloat16"}),
    ({"bf16": False}, {"compute_dtype": "float32"}),
    ({"bf16": None, "fp16": False}, {}),
    ({"bf16": True, "fp16": False}, {"compute_dtype": "bfloat16"}),
    ({"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch"}),
    ({"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
    ({"warmup_ratio": 0.0, "warmup_steps": 100}, {"warmup_steps": 100}),
    ({"optim": "adamw_torch"}, {"optim": "adamw"}),
    ({"optim": "adafactor"}, {"optim": "adafactor"}),
    ({"optim_args": "momentum=0.9, nesterov=true"}, {"optim_args": {"momentum": 0.9, "nesterov": True}}),
    ({"optim_args": '{"momentum": 0.9}'}, {"optim_args": {"momentum": 0.9}}),
    ({"max_grad_norm": None}, {"max_grad_norm": 0.0}),
    ({"activation_checkpointing": True}, {"gradient_checkpointing": True}),
    ({"gradient_checkpointing": None}, {}),
    ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}, {"gradient_checkpointing": True}),
    ({"shuffle_dataset": True}, {"train_sampling_strategy": "random"}),
    ({"resume_from_checkpoint": True}, {"resume_from_checkpoint": "auto"}),
    ({"resume_from_checkpoint": False}, {"resume_from_checkpoint": "never"}),
    ({"resume_from_checkpoint": "runs/a/checkpoint-5"}, {"resume_from_checkpoint": "runs/a/checkpoint-5"}),
    ({"log_level": "passive"}, {}),
    ({"log_level": "info"}, {"quiet": False}),
    ({"log_level": "error"}, {"quiet": True}),
    ({"report_to": None}, {}),
    ({"report_to": []}, {}),
    ({"report_to": ["none"]}, {}),
    ({"report_to": "wandb"}, {"report_to": ["wandb"]}),
    ({"loss_type": "chunked_nll"}, {"loss_type": "nll"}),
    ({"fsdp": ""}, {}),
    ({"fsdp": "full_shard auto_wrap"}, {"fsdp": "full_shard"}),
    ({"fsdp": ["hybrid_shard", "auto_wrap"]}, {"fsdp": "hybrid_shard"}),
    ({"fsdp": True}, {"fsdp": "full_shard"}),
    ({"remove_unused_columns": False}, {}),
    ({"dataset_kwargs": {"skip_prepare_dataset": False}}, {}),
    ({"do_train": True, "do_eval": True}, {}),
]


@pytest.mark.parametrize(("old", "new"), BECOMES)
def test_an_old_spelling_is_its_new_one(old, new):
    assert SFTConfig(**old) == SFTConfig(**new)
    assert SFTConfig(**old).notes == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"dtype": None}, {}),
        ({"bf16": True}, {"compute_dtype": "bfloat16"}),
    ],
)
def test_an_old_spelling_of_the_model_is_its_new_one(old, new):
    assert ModelConfig(**old) == ModelConfig(**new)


def test_a_lone_module_name_is_a_list_and_a_pattern_stays_one():
    assert ModelConfig(use_peft=True, lora_target_modules=r".*\.q_proj").lora_target_modules == r".*\.q_proj"
    assert ModelConfig(use_peft=True, lora_target_modules="all-linear").lora_target_modules == "all-linear"
    assert ModelConfig(use_peft=True, lora_target_modules="self_attn.q_proj").lora_target_modules == ["self_attn.q_proj"]


@pytest.mark.parametrize(
    ("devices", "said", "batch_size"),
    [
        (None, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}, 32),
        (None, {"gradient_accumulation_steps": 2}, 16),
        (None, {"per_device_train_batch_size": 1}, 1),
        ("4", {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}, 24),
        ("4", {"batch_size": 6}, 6),
        (None, {"batch_size": 32, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}, 32),
    ],
)
def test_batch_size_is_per_device_times_accumulation_times_devices(monkeypatch, devices, said, batch_size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if devices:
        monkeypatch.setenv("WORLD_SIZE", devices)
    assert SFTConfig(**said).batch_size == batch_size


def test_the_batch_size_is_explained(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert SFTConfig(per_device_train_batch_size=4, gradient_accumulation_steps=8).notes == (
        f"per_device_train_batch_size=4 × gradient_accumulation_steps=8 × 2 devices is batch_size=64; {BUDGET}",
    )


NOTED = [
    ({"packing": True}, f"packing=True changes nothing: {PACKED}"),
    ({"eval_packing": True}, f"eval_packing=True changes nothing: {PACKED}"),
    (
        {"dataloader_num_workers": 4},
        "dataloader_num_workers=4 changes nothing: there is no data loader; rows are tokenised ahead, by dataset_num_proc processes.",
    ),
    (
        {"per_device_eval_batch_size": 2},
        "per_device_eval_batch_size=2 changes nothing: evaluation fills micro-batches by max_tokens_per_microbatch.",
    ),
    (
        {"pad_token": "<pad>"},
        f"pad_token='<pad>' changes nothing: {ALONE}.",
    ),
    ({"use_liger_kernel": True}, "use_liger_kernel=True changes nothing: the logits are never stored."),
    ({"torch_compile": True}, "torch_compile=True changes nothing: the model is not compiled."),
    ({"logging_dir": "logs"}, "logging_dir='logs' changes nothing: metrics are written into output_dir."),
]


@pytest.mark.parametrize(("said", "note"), NOTED)
def test_what_could_only_change_speed_or_memory_is_taken_with_a_note(said, note):
    args = SFTConfig(**said)
    assert args == SFTConfig()
    assert args.notes == (note,)


def test_the_task_type_is_the_method_s():
    assert ModelConfig(lora_task_type="SEQ_CLS").notes == ("lora_task_type='SEQ_CLS' changes nothing: the method knows its task type.",)


def test_every_default_of_the_mixture_is_taken():
    assert DataConfig(dataset_name="a", datasets=[], streaming=False, test_split_size=None) == DataConfig(dataset_name="a")
    assert DataConfig(dataset_name="a", streaming=True).dataset_streaming
    with pytest.raises(ConfigError, match="fraction=0.5 is refused: use weight, the source's share of the mixture"):
        DataConfig(datasets=[{"path": "a", "fraction": 0.5}])


def test_other_attention_kernels_are_taken_with_a_note():
    model = ModelConfig(attn_implementation="flash_attention_2")
    assert model.attn_implementation is None
    assert model.notes == (
        "attn_implementation='flash_attention_2' changes nothing: attention runs over token trees, by the fastest kernel of the device.",
    )


SHARDING = "models are sharded by FSDP2; use fsdp='full_shard', fsdp_cpu_offload and fsdp_reduce_dtype."
HUB = "nothing is uploaded; save the model and upload output_dir yourself."
REFUSED = [
    (
        {"bf16": True, "compute_dtype": "float32"},
        "bf16=True and compute_dtype='float32' say different things of compute_dtype; give only compute_dtype.",
    ),
    (
        {"max_length": 5, "max_seq_length": 6},
        "max_length=5 and max_seq_length=6 say different things of max_length; give only max_length.",
    ),
    (
        {"batch_size": 8, "gradient_accumulation_steps": 2},
        "batch_size=8 and gradient_accumulation_steps=2 say different things of batch_size; give only batch_size.",
    ),
    ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be an integer of at least 1, not 0."),
    ({"gradient_accumulation_steps": "x"}, "gradient_accumulation_steps must be an integer of at least 1, not 'x'."),
    ({"fp16": True}, "fp16=True is refused: float16 needs its loss scaled, which is not done here; use bf16=True or bf16=False."),
    ({"bf16": "yes"}, "bf16 must be True, False or None, not 'yes'."),
    ({"warmup_ratio": 1}, "warmup_ratio must be a number of at least 0 and below 1, not 1."),
    ({"max_seq_length": -1}, "max_seq_length must be an integer of at least 2 or None, not -1."),
    ({"fsdp": "full_shard offload"}, "fsdp='full_shard offload' is refused: say fsdp_cpu_offload=True beside fsdp='full_shard'."),
    ({"deepspeed": "zero3.json"}, f"deepspeed='zero3.json' is refused: {SHARDING}"),
    ({"push_to_hub": True}, f"push_to_hub=True is refused: {HUB}"),
    ({"hub_model_id": "me/m"}, f"hub_model_id='me/m' is refused: {HUB}"),
    ({"neftune_noise_alpha": 5}, "neftune_noise_alpha=5 is refused: no noise is added to embeddings; leave it out."),
    ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1 is refused: labels are not smoothed; leave it at 0."),
    (
        {"auto_find_batch_size": True},
        "auto_find_batch_size=True is refused: batch_size is exact, and max_tokens_per_microbatch bounds the memory.",
    ),
    (
        {"activation_offloading": True},
        "activation_offloading=True is refused: use gradient_checkpointing, or a smaller max_tokens_per_microbatch.",
    ),
    (
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
        "gradient_checkpointing_kwargs={'use_reentrant': True} is refused: "
        "activations are always recomputed without re-entrance; leave it out.",
    ),
    ({"group_by_length": True}, "group_by_length=True is refused: nothing is padded, so lengths need no grouping; leave it out."),
    (
        {"packing_strategy": "wrapped"},
        "packing_strategy='wrapped' is refused: packing never cuts or joins examples, and truncation_mode says what becomes of long ones.",
    ),
    (
        {"dataset_kwargs": {"skip_prepare_dataset": True}},
        "dataset_kwargs={'skip_prepare_dataset': True} is refused: "
        "rows with input_ids are recognised by that column and taken as they are.",
    ),
    ({"use_cpu": True}, "use_cpu=True is refused: the device is chosen by what is visible; set CUDA_VISIBLE_DEVICES='' to use the CPU."),
    ({"data_seed": 1}, "data_seed=1 is refused: the order of the data follows seed."),
    ({"logging_strategy": "epoch"}, "logging_strategy='epoch' is refused: give logging_steps, the number of steps between two lines."),
    (
        {"optim": "paged_adamw_8bit"},
        "optim='paged_adamw_8bit' is refused: there are adamw, adafactor, sgd, muon; for another one, build the optimizer yourself and "
        "pass it to the trainer as optimizers=(optimizer, scheduler).",
    ),
    (
        {"lr_scheduler_type": "greedy"},
        "lr_scheduler_type='greedy' is refused: it needs a metric at every step, which the loop has not; choose a schedule of the step's "
        "number.",
    ),
    (
        {"train_sampling_strategy": "group_by_length"},
        "train_sampling_strategy='group_by_length' is refused: nothing is padded, so lengths need no grouping; use 'random'.",
    ),
    (
        {"save_strategy": "best"},
        "save_strategy='best' is refused: use 'steps' or 'epoch' with load_best_model_at_end; save_total_limit keeps the best checkpoint "
        "and the last.",
    ),
    ({"optim_args": "abc"}, "optim_args must be a mapping or None, not 'abc'."),
]


@pytest.mark.parametrize(("said", "sentence"), REFUSED)
def test_what_has_no_counterpart_is_refused_with_what_to_use(said, sentence):
    with pytest.raises(ConfigError) as refused:
        SFTConfig(**said)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"lora_target_parameters": ["w"]}, "lora_target_parameters=['w'] is refused: use lora_target_modules."),
    ],
)
def test_model_options_without_counterpart(said, sentence):
    with pytest.raises(ConfigError) as refused:
        ModelConfig(**said)
    assert str(refused.value) == sentence
