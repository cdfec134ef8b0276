"""Ranges, choices and contradictions of each configuration, with the exact sentence of every refusal."""

from typing import get_args

import pytest

from burnish.config import ConfigError, DataConfig, ModelConfig, SFTConfig
from burnish.config.base import options
from burnish.config.train import Schedule
from burnish.ops.schedules import SHAPES


def refusal(cls, **said):
    with pytest.raises(ConfigError) as refused:
        cls(**said)
    return str(refused.value)


SFT_REFUSALS = [
    ({"learning_rate": 0}, "learning_rate must be a number above 0, not 0."),
    ({"optim": 3}, "optim must be 'adamw', 'adafactor', 'sgd' or 'muon', not 3."),
    ({"weight_decay": -0.1}, "weight_decay must be a number of at least 0, not -0.1."),
    ({"adam_beta1": 1}, "adam_beta1 must be a number of at least 0 and below 1, not 1."),
    ({"adam_beta2": -0.1}, "adam_beta2 must be a number of at least 0 and below 1, not -0.1."),
    ({"adam_epsilon": 0}, "adam_epsilon must be a number above 0, not 0."),
    ({"max_grad_norm": -1}, "max_grad_norm must be a number of at least 0, not -1."),
    (
        {"lr_scheduler_type": "steady"},
        "lr_scheduler_type must be 'linear', 'cosine', 'cosine_with_restarts', 'constant', 'constant_with_warmup', 'polynomial', "
        "'inverse_sqrt', 'cosine_with_min_lr' or 'warmup_stable_decay', not 'steady'.",
    ),
    ({"lr_scheduler_kwargs": 3}, "lr_scheduler_kwargs must be a mapping or None, not 3."),
    ({"warmup_steps": 1.5}, "warmup_steps must be an integer of at least 0, or a share of the run below 1, not 1.5."),
    ({"warmup_steps": -1}, "warmup_steps must be an integer of at least 0, or a share of the run below 1, not -1."),
    (
        {"lr_scheduler_type": "constant", "warmup_steps": 10},
        "lr_scheduler_type='constant' has no warm-up; use 'constant_with_warmup', or warmup_steps=0.",
    ),
    ({"optim": "sgd", "adam_beta1": 0.8}, "adam_beta1=0.8 has no effect on optim='sgd'; use optim_args."),
    ({"seed": -1}, "seed must be an integer of at least 0, not -1."),
    ({"num_train_epochs": 0}, "num_train_epochs must be a number above 0, not 0."),
    ({"max_steps": 0}, "max_steps must be an integer of at least 1, or -1, not 0."),
    ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0."),
    ({"max_tokens_per_microbatch": 0}, "max_tokens_per_microbatch must be an integer of at least 1 or None, not 0."),
    ({"train_sampling_strategy": "sorted"}, "train_sampling_strategy must be 'random' or 'sequential', not 'sorted'."),
    ({"router_aux_loss_coef": -1}, "router_aux_loss_coef must be a number of at least 0 or None, not -1."),
    ({"eval_strategy": "step"}, "eval_strategy must be 'no', 'steps' or 'epoch', not 'step'."),
    ({"eval_strategy": "steps", "eval_steps": 0.1}, "eval_steps must be an integer of at least 1 or None, not 0.1."),
    ({"eval_steps": 5}, "eval_steps=5 has no effect with eval_strategy='no'; use 'steps'."),
    ({"load_best_model_at_end": True}, "load_best_model_at_end=True needs evaluations; set eval_strategy='steps' or 'epoch'."),
    ({"metric_for_best_model": "loss"}, "metric_for_best_model='loss' needs evaluations; set eval_strategy='steps' or 'epoch'."),
    (
        {"eval_strategy": "epoch", "greater_is_better": True},
        "greater_is_better=True has no effect without metric_for_best_model; name the metric.",
    ),
    ({"save_strategy": "all"}, "save_strategy must be 'no', 'steps' or 'epoch', not 'all'."),
    ({"save_strategy": "epoch", "save_steps": 5}, "save_steps=5 has no effect with save_strategy='epoch'; use 'steps'."),
    ({"save_steps": 0}, "save_steps must be an integer of at least 1, not 0."),
    ({"save_total_limit": 0}, "save_total_limit must be an integer of at least 1 or None, not 0."),
    ({"save_strategy": "no", "save_total_limit": 2}, "save_total_limit=2 has no effect with save_strategy='no'; use 'steps' or 'epoch'."),
    ({"fsdp_cpu_offload": True}, "fsdp_cpu_offload=True has no effect with fsdp='no'; name a kind of sharding, or leave it out."),
    (
        {"fsdp": "full_shard", "optim": "adafactor"},
        "optim='adafactor' factors whole matrices, and fsdp='full_shard' shards them; use adamw, sgd or muon.",
    ),
    ({"ddp_timeout": 0}, "ddp_timeout must be an integer of at least 1, not 0."),
    ({"logging_steps": 0}, "logging_steps must be an integer of at least 1, not 0."),
    ({"report_to": "all"}, "report_to must be a list of 'tensorboard', 'trackio', 'wandb' or 'mlflow', not ['all']."),
    (
        {"output_dir": "runs/caf\udce9"},
        "output_dir='runs/caf\\udce9' is not UTF-8, which files of weights cannot lie under; name another folder.",
    ),
    ({"compute_dtype": "float16"}, "compute_dtype must be 'auto', 'float32' or 'bfloat16', not 'float16'."),
    ({"loss_type": "sum"}, "loss_type must be 'nll' or 'dft', not 'sum'."),
    ({"max_length": 1}, "max_length must be an integer of at least 2 or None, not 1."),
    ({"truncation_mode": "cut"}, "truncation_mode must be 'error', 'drop', 'keep_start' or 'keep_end', not 'cut'."),
    (
        {"max_length": None, "truncation_mode": "keep_end"},
        "truncation_mode='keep_end' has no effect with max_length=None; give a length.",
    ),
    ({"dataset_num_proc": 0}, "dataset_num_proc must be an integer of at least 1 or None, not 0."),
    ({"assistant_only_loss": "yes"}, "assistant_only_loss must be True or False, not 'yes'."),
]


@pytest.mark.parametrize(("said", "sentence"), SFT_REFUSALS)
def test_sft_refusals(said, sentence):
    assert refusal(SFTConfig, **said) == sentence


MODEL_REFUSALS = [
    ({"dtype": "float64"}, "dtype must be 'auto', 'float32', 'bfloat16' or 'float16', not 'float64'."),
    ({"dtype": "float16"}, "dtype='float16' needs use_peft=True: weights of that type lose small updates; use 'float32' to train them."),
    (
        {"dtype": "bfloat16", "compute_dtype": "float32"},
        "dtype='bfloat16' holds less than compute_dtype='float32' computes with; use dtype='float32'.",
    ),
    ({"attn_implementation": "ring"}, "attn_implementation must be 'tree' or 'branches' or None, not 'ring'."),
    ({"lora_r": 0}, "lora_r must be an integer of at least 1, not 0."),
    ({"lora_r": 8}, "lora_r=8 has no effect without use_peft=True; set it, or leave this out."),
    (
        {"adapter_name_or_path": "a", "lora_alpha": 8},
        "lora_alpha=8 has no effect with adapter_name_or_path, which brings its own; leave it out.",
    ),
    ({"use_peft": True, "lora_dropout": 1}, "lora_dropout must be a number of at least 0 and below 1, not 1."),
    (
        {"use_peft": True, "load_in_4bit": True, "load_in_8bit": True},
        "load_in_4bit=True and load_in_8bit=True contradict each other; give one of them.",
    ),
    ({"load_in_8bit": True}, "load_in_8bit=True needs use_peft=True: quantised weights are not trained, only an adapter over them is."),
    (
        {"use_peft": True, "use_bnb_nested_quant": True},
        "use_bnb_nested_quant=True has no effect without load_in_4bit=True; set it, or leave this out.",
    ),
    ({"bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type must be 'nf4' or 'fp4', not 'int4'."),
    ({"model_init_kwargs": {"revision": "v1"}}, "model_init_kwargs holds 'revision', which has an option of its own; use model_revision."),
    ({"model_name": "m"}, "ModelConfig has no option 'model_name'; the nearest is 'model_name_or_path'."),
]


@pytest.mark.parametrize(("said", "sentence"), MODEL_REFUSALS)
def test_model_refusals(said, sentence):
    assert refusal(ModelConfig, **said) == sentence


SIZE = "test_split_size must be an integer of at least 1, a number above 0 and below 1, or None"
DATA_REFUSALS = [
    ({"dataset_name": "a", "datasets": [{"path": "b"}]}, "dataset_name and datasets both say what to train on; give one of them."),
    ({"datasets": [{"path": "b", "weight": 0}]}, "weight must be a number above 0, not 0."),
    (
        {"datasets": [{"path": "b"}], "dataset_train_split": "a"},
        "dataset_train_split='a' has no effect on datasets; say name and split for each source of the mixture.",
    ),
    (
        {"datasets": [{"path": "b"}], "dataset_test_split": "test"},
        "dataset_test_split has no effect on datasets; use eval_datasets or test_split_size.",
    ),
    (
        {"dataset_test_split": "test", "test_split_size": 0.1},
        "dataset_test_split='test' and test_split_size=0.1 both say what to evaluate on; give one of them.",
    ),
    ({"test_split_size": 0}, f"{SIZE}, not 0."),
    ({"test_split_size": 1.5}, f"{SIZE}, not 1.5."),
    (
        {"dataset_streaming": True, "test_split_size": 10},
        "test_split_size needs to count the rows, which dataset_streaming=True does not; use eval_datasets.",
    ),
    ({"eval_datasets": {"a": 3}}, "eval_datasets must be a mapping or None, not {'a': 3}."),
]


@pytest.mark.parametrize(("said", "sentence"), DATA_REFUSALS)
def test_data_refusals(said, sentence):
    assert refusal(DataConfig, **said) == sentence


def test_what_follows_from_other_options_is_filled_in():
    args = SFTConfig(eval_strategy="steps", logging_steps=7, load_best_model_at_end=True)
    assert (args.eval_steps, args.metric_for_best_model, args.greater_is_better) == (7, "loss", False)
    assert SFTConfig(eval_strategy="epoch", metric_for_best_model="eval_mean_token_accuracy").greater_is_better is True
    assert SFTConfig(eval_strategy="epoch", metric_for_best_model="eval_perplexity").greater_is_better is False
    assert SFTConfig(eval_strategy="epoch", metric_for_best_model="loss", greater_is_better=True).greater_is_better is True


def test_the_documented_defaults():
    args = SFTConfig()
    assert (args.learning_rate, args.batch_size, args.num_train_epochs, args.max_steps) == (2e-5, 8, 3.0, -1)
    assert (args.optim, args.lr_scheduler_type, args.warmup_steps, args.max_grad_norm) == ("adamw", "linear", 0, 1.0)
    assert (args.max_length, args.truncation_mode, args.loss_type) == (1024, "drop", "nll")
    assert (args.completion_only_loss, args.assistant_only_loss) == (None, False)
    assert (args.save_steps, args.logging_steps, args.eval_strategy, args.resume_from_checkpoint) == (500, 10, "no", "auto")
    assert (args.seed, args.gradient_checkpointing, args.compute_dtype, args.output_dir) == (42, False, "auto", "runs/sft")
    model = ModelConfig()
    assert (model.dtype, model.lora_r, model.lora_alpha, model.lora_dropout) == ("auto", 16, 32, 0.05)


def test_every_schedule_is_one_that_exists():
    assert set(get_args(Schedule)) == {*SHAPES, "inverse_sqrt"}


@pytest.mark.parametrize("cls", [SFTConfig, ModelConfig, DataConfig])
def test_every_option_has_a_help_of_one_line(cls):
    for name, one in options(cls).items():
        assert one.help.endswith("."), name
        assert len(one.help) <= 100, name


def test_max_steps_decides_over_num_train_epochs():
    both = SFTConfig(max_steps=5, num_train_epochs=1)
    assert both.notes == ("max_steps=5 and num_train_epochs=1.0 both say how long to train: max_steps decides.",)
