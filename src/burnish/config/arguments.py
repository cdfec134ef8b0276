"""What other libraries' scripts say to a trainer or import, and has no counterpart here: each with what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from burnish.config.values import ConfigError

OPTION = "it is an option of the configuration"
INSTEAD = {
    "data_collator": "examples are laid out as token trees, which need no collator; leave it out",
    "tokenizer": "its name is processing_class",
    "quantization_config": "use model_config=ModelConfig(load_in_4bit=True, use_peft=True, ...)",
    "compute_loss_func": "choose loss_type, or write a method with a loss of its own (docs/methods.md)",
    "preprocess_logits_for_metrics": "logits are never kept; compute_metrics sees log-probs, entropies and hits of the trained tokens",
    "optimizer_cls_and_kwargs": "use optim and optim_args, or optimizers=(optimizer, schedule)",
    "model_init": "pass the model itself",
    **dict.fromkeys(
        ("dataset_text_field", "beta", "label_smoothing", "loss_type", "max_length", "precompute_ref_log_probs", "sync_ref_model"), OPTION
    ),
    "max_seq_length": "it is max_length, an option of the configuration",
    **dict.fromkeys(("max_prompt_length", "max_completion_length"), "max_length, an option of the configuration, bounds both together"),
    **dict.fromkeys(
        ("model_adapter_name", "ref_adapter_name"), "the reference is the adapter as it is at the start, or ref_model_name_or_path"
    ),
    **dict.fromkeys(("embedding_func", "embedding_tokenizer"), "answers are not weighed by the density of their prompts"),
    "rollout_func": "write an environment, and give environment_factory",
    "is_encoder_decoder": "models are decoders; leave it out",
    "packing": "examples never see each other and are never padded, so there is nothing to choose",
}


def refuse_arguments(given: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first argument that is not None."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"The trainer has no argument {name!r}: {INSTEAD.get(name, 'see help(Trainer) for those it has')}.")


INSIDE = "it is a part of another loop; see docs/methods.md for how a method is changed"
LOADER = "there is no data loader: micro-batches are token trees, which trainer.batches() draws"
NO_HUB = "nothing is uploaded; save_model writes the folder, and huggingface_hub uploads it"
OWN_LAW = "losses and their parts are functions in burnish.ops, which take log-probs"
METHODS_INSTEAD = {
    "accelerator": "accelerate is not used; trainer.here has rank, world_size, device and main",
    **dict.fromkeys(("push_to_hub", "init_hf_repo", "create_model_card"), NO_HUB),
    **dict.fromkeys(("get_train_dataloader", "get_eval_dataloader", "get_test_dataloader", "get_batch_samples", "num_examples"), LOADER),
    **dict.fromkeys(("predict", "prediction_step", "evaluation_loop"), "evaluate() gives metrics, and compute_metrics more of them"),
    "hyperparameter_search": "make one configuration and one trainer for each trial, each with an output_dir of its own",
    **dict.fromkeys(
        ("create_optimizer", "create_scheduler", "create_optimizer_and_scheduler", "get_optimizer_cls_and_kwargs", "get_optimizer_group"),
        "the trainer makes them when it is made; pass optimizers=(optimizer, scheduler) for others",
    ),
    "get_decay_parameter_names": "matrices decay, biases and norms do not; pass optimizers=(optimizer, scheduler) for another choice",
    "get_learning_rates": "every line of state.log_history has learning_rate",
    "get_num_trainable_parameters": "sum p.numel() over trainer.model.parameters() with requires_grad",
    "get_total_train_batch_size": "it is args.batch_size",
    "pop_callback": "remove_callback removes it, and callbacks is the list of them",
    "log": "a callback's on_log sees every line, and metrics of a method's own are in its LossOut",
    "store_metrics": "metrics of a method's own are in its LossOut",
    "metrics_format": "log_metrics shows metrics as they are",
    "lr_scheduler": "the learning rate of each line is in state.log_history; optimizers=(optimizer, scheduler) takes one of your own",
    **dict.fromkeys(("train_dataset", "eval_dataset"), "rows become examples, which are trainer.sets.train and trainer.sets.eval"),
    "model_wrapped": "trainer.model is the model",
    "tokenizer": "its name is processing_class",
    "callback_handler": "add_callback and remove_callback change trainer.callbacks",
    "end": "train() closes the trackers itself",
    "generate_from_model": "burnish generate samples from the saved model",
    **dict.fromkeys(("compute_ref_log_probs", "concatenated_forward", "concatenated_inputs", "get_batch_logps"), OWN_LAW),
    **dict.fromkeys(("cpo_loss", "odds_ratio_loss", "get_gamma_weights", "get_high_entropy_mask", "get_off_policy_mask"), OWN_LAW),
    **dict.fromkeys(("build_tokenized_answer", "tokenize_row"), "burnish.data.prepare makes examples of rows; burnish inspect shows them"),
    **dict.fromkeys(("floating_point_ops", "store_flos"), "floating-point operations are not counted; tokens_per_second is logged"),
    **dict.fromkeys(("get_cp_size", "get_sp_size", "get_tp_size"), "processes share the rows, and with fsdp the weights, in no other way"),
    **dict.fromkeys(
        (
            "compute_loss", "training_step", "get_batch_loss_metrics", "autocast_smart_context_manager", "call_model_init",
            "compute_loss_context_manager", "create_accelerator_and_postprocess", "set_initial_training_values",
        ),
        INSIDE,
    ),
}  # fmt: skip
"""Attributes of other libraries' trainers."""

PARSED = "`burnish sft`, `burnish grpo` and the others take the same flags and YAML keys; from Python make the configurations themselves"
ADAPTER = "pass model_config=ModelConfig(...) to the trainer, which has the adapter's options and the quantisation's"
RENDERED = "rows are recognised by their columns and rendered by the trainer; give them as they are, and see them with `burnish inspect`"
TEMPLATE = "set chat_template_path; the trained tokens are found without generation tags"
DOORS = {
    **dict.fromkeys(("TrlParser", "ScriptArguments", "DatasetMixtureConfig", "get_dataset", "init_zero_verbose"), PARSED),
    **dict.fromkeys(("get_peft_config", "get_quantization_config"), ADAPTER),
    **dict.fromkeys(("add_response_schema", "clone_chat_template", "get_training_chat_template", "supports_tool_calling"), TEMPLATE),
    **dict.fromkeys(
        (
            "apply_chat_template", "extract_prompt", "is_conversational", "is_conversational_from_value", "maybe_apply_chat_template",
            "maybe_convert_to_chatml", "maybe_extract_prompt", "prepare_multimodal_messages",
        ),
        RENDERED,
    ),
    **dict.fromkeys(("unpair_preference_dataset", "maybe_unpair_preference_dataset"), "KTOTrainer reads a pair as two rows"),
    "pack_dataset": "every micro-batch is packed, so that examples never see each other",
    "create_reference_model": "the reference is the policy as it was at the start; leave ref_model out",
    **dict.fromkeys(("SyncRefModelCallback", "BEMACallback"), "set sync_ref_model=True, with ref_model_update='mixup' or 'bema'"),
    **dict.fromkeys(("LogCompletionsCallback", "WeaveCallback"), "every sample is kept in output_dir; `burnish inspect` shows them"),
    "RichProgressCallback": "the trainer shows its progress by itself",
    **dict.fromkeys(("DistillationConfig", "DistillationTrainer"), "there is no distillation; SFTTrainer learns a teacher's answers"),
    **dict.fromkeys(("PPOConfig", "PPOTrainer"), "there is no PPO with a value model; use GRPOTrainer or RLOOTrainer"),
    **dict.fromkeys(("OnlineDPOConfig", "OnlineDPOTrainer"), "there is no online DPO; use GRPOTrainer or RLOOTrainer"),
    **dict.fromkeys(("NashMDTrainer", "XPOTrainer", "GKDTrainer", "GKDConfig"), "there is none; docs/methods.md lists the methods"),
    "AutoModelForCausalLMWithValueHead": "no method here has a value head",
    "DataCollatorForCompletionOnlyLM": "use rows with a prompt and a completion, of which the completion is trained",
    "setup_chat_format": "set chat_template_path",
}  # fmt: skip
"""Names that other libraries' scripts import."""


def with_doors(get: Callable[[str], Any]) -> Callable[[str], Any]:
    """A module's `__getattr__` that says of such a name what to use instead, by an ImportError: Python would hide an AttributeError."""

    def get_or_say(name: str) -> Any:
        if name in DOORS:
            raise ImportError(f"Burnish has no {name}: {DOORS[name]}.", name=name)
        return get(name)

    return get_or_say
