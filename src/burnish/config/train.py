"""What every training shares: optimizer, loop, evaluation, checkpoints, reports."""

from typing import Any, ClassVar, Literal

from burnish.config.base import Config, config, option
from burnish.config.model import LoadConfig
from burnish.config.values import ConfigError

ModelKind = Literal["causal", "reward", "process_reward"]
Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow"]
Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "constant",
    "constant_with_warmup",
    "polynomial",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "warmup_stable_decay",
]


@config
class OptimizerConfig(Config):
    """How the weights are changed."""

    learning_rate: float = option(5e-5, "Peak learning rate.", above=0)
    optim: Literal["adamw", "adafactor", "sgd", "muon"] = option("adamw", "Optimizer.")
    optim_args: dict[str, Any] | None = option(None, "Further arguments of the optimizer.")
    weight_decay: float = option(0.0, "Decoupled weight decay (of matrices, not of biases and norms).", at_least=0)
    adam_beta1: float = option(0.9, "AdamW: decay of the first moment.", at_least=0, below=1)
    adam_beta2: float = option(0.999, "AdamW: decay of the second moment.", at_least=0, below=1)
    adam_epsilon: float = option(1e-8, "AdamW: added to the denominator.", above=0)
    max_grad_norm: float = option(1.0, "Clip the gradient to this norm; 0: never.", at_least=0)
    lr_scheduler_type: Schedule = option("linear", "Shape of the learning rate over the run.")
    lr_scheduler_kwargs: dict[str, Any] | None = option(None, "Further arguments of the schedule.")
    warmup_steps: int | float = option(
        0,
        "Steps of linear warm-up; below 1: this share of the run.",
        where=lambda steps: steps >= 0 and (steps < 1 or steps == int(steps)),
        said="an integer of at least 0, or a share of the run below 1",
    )

    def __post_init__(self) -> None:
        if self.lr_scheduler_type == "constant" and self.warmup_steps:
            raise ConfigError("lr_scheduler_type='constant' has no warm-up; use 'constant_with_warmup', or warmup_steps=0.")
        adam = self.changed("adam_beta1", "adam_beta2", "adam_epsilon")
        if adam and self.optim != "adamw":
            raise ConfigError(f"{adam[0]} has no effect on optim={self.optim!r}; use optim_args.")
        super().__post_init__()


@config
class LoopConfig(Config):
    """How long is trained, on how much at a time."""

    seed: int = option(42, "Seed of everything random: order of the data, dropout, new weights.", at_least=0)
    num_train_epochs: float = option(3.0, "Passes over the data.", above=0)
    max_steps: int = option(
        -1,
        "Optimizer steps; -1: as many as num_train_epochs takes.",
        where=lambda steps: steps == -1 or steps >= 1,
        said="an integer of at least 1, or -1",
    )
    batch_size: int = option(8, "Examples of one optimizer step, over all devices.", at_least=1)
    max_tokens_per_microbatch: int | None = option(None, "Tokens of one forward pass; None: by the memory.", at_least=1)
    gradient_checkpointing: bool = option(False, "Recompute activations in the backward pass: less memory, about a third more time.")
    disable_dropout: bool = option(False, "Set every dropout of the model to 0.")
    train_sampling_strategy: Literal["random", "sequential"] = option("random", "Order of the rows; random: anew in every epoch.")
    router_aux_loss_coef: float | None = option(None, "Weight of the balancing loss of a model of experts; None: the model's.", at_least=0)

    def __post_init__(self) -> None:
        if len(lengths := self.changed("max_steps", "num_train_epochs")) == 2:
            self.note(f"{' and '.join(lengths)} both say how long to train: max_steps decides.")
        super().__post_init__()


@config
class EvalConfig(Config):
    """When to evaluate, and which checkpoint is the best."""

    eval_strategy: Literal["no", "steps", "epoch"] = option("no", "When to evaluate.")
    eval_steps: int | None = option(None, "With eval_strategy steps: every so many steps; None: as logging_steps.", at_least=1)
    eval_on_start: bool = option(False, "Evaluate before the first step.")
    load_best_model_at_end: bool = option(False, "End with the best checkpoint's weights instead of the last.")
    metric_for_best_model: str | None = option(None, "Metric that decides which is best; None: loss.")
    greater_is_better: bool | None = option(None, "Whether more of it is better; None: not of loss, perplexity or entropy.")

    def __post_init__(self) -> None:
        if self.eval_steps is not None and self.eval_strategy != "steps":
            raise ConfigError(f"eval_steps={self.eval_steps} has no effect with eval_strategy={self.eval_strategy!r}; use 'steps'.")
        best = self.changed("load_best_model_at_end", "metric_for_best_model", "greater_is_better")
        if best and self.eval_strategy == "no":
            raise ConfigError(f"{best[0]} needs evaluations; set eval_strategy='steps' or 'epoch'.")
        if self.greater_is_better is not None and len(best) == 1:
            raise ConfigError(f"{best[0]} has no effect without metric_for_best_model; name the metric.")
        super().__post_init__()


@config
class CheckpointConfig(Config):
    """Where the run is kept, and how it is resumed."""

    output_dir: str = option("runs", "Folder of the run: checkpoints, metrics, the final model.")
    overwrite_output_dir: bool = option(False, "Delete another run that is in output_dir.")
    save_strategy: Literal["no", "steps", "epoch"] = option("steps", "When to write a checkpoint.")
    save_steps: int = option(500, "With save_strategy steps: every so many steps.", at_least=1)
    save_total_limit: int | None = option(None, "Keep so many checkpoints, the best and the last among them; None: all.", at_least=1)
    save_async: bool = option(False, "Write checkpoints while training goes on, from a copy in the CPU's memory.")
    resume_from_checkpoint: str = option("auto", "auto: continue the run in output_dir; never: start anew; or a checkpoint.")

    def __post_init__(self) -> None:
        if self.save_steps != 500 and self.save_strategy != "steps":
            raise ConfigError(f"save_steps={self.save_steps} has no effect with save_strategy={self.save_strategy!r}; use 'steps'.")
        super().__post_init__()


@config
class ScaleConfig(Config):
    """How the processes of a run share the work."""

    fsdp: Literal["no", "full_shard", "shard_grad_op", "hybrid_shard", "hybrid_shard_zero2"] = option(
        "no", "Shard the model over the processes (FSDP2), or within each machine; no: each holds all of it."
    )
    fsdp_cpu_offload: bool = option(False, "With fsdp: weights, gradients and optimizer wait in the memory of the CPU.")
    fsdp_reduce_dtype: Literal["float32", "bfloat16"] = option("float32", "With fsdp: dtype in which gradients are summed over processes.")
    ddp_timeout: int = option(1800, "Seconds that a process waits for another before the run ends.", at_least=1)

    def __post_init__(self) -> None:
        unheard = self.changed("fsdp_cpu_offload", "fsdp_reduce_dtype") if self.fsdp == "no" else []
        if unheard:
            raise ConfigError(f"{unheard[0]} has no effect with fsdp='no'; name a kind of sharding, or leave it out.")
        super().__post_init__()


@config
class ReportConfig(Config):
    """What is shown and logged."""

    logging_steps: int = option(10, "Log every so many steps.", at_least=1)
    logging_first_step: bool = option(False, "Log the first step, too.")
    report_to: list[Tracker] = option([], "Trackers; metrics are written to output_dir in any case.")
    run_name: str | None = option(None, "Name of the run in trackers; None: output_dir's.")
    disable_tqdm: bool | None = option(None, "Show no progress bar, and a line at each logging step; None: a bar on a terminal.")
    quiet: bool = option(False, "Show warnings and the closing line alone; metrics are written to output_dir all the same.")


@config
class TrainConfig(LoadConfig, OptimizerConfig, LoopConfig, EvalConfig, CheckpointConfig, ScaleConfig, ReportConfig):
    """What every training shares."""

    model_kind: ClassVar[ModelKind] = "causal"
    """What the method trains: a language model, or one that gives a score of a row, or of each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_dir.encode(errors="replace").decode() != self.output_dir:
            raise ConfigError(f"output_dir={self.output_dir!r} is not UTF-8, which files of weights cannot lie under; name another folder.")
        if self.fsdp != "no" and self.optim == "adafactor":
            raise ConfigError(f"optim='adafactor' factors whole matrices, and fsdp={self.fsdp!r} shards them; use adamw, sgd or muon.")
        if self.save_total_limit is not None and self.save_strategy == "no" and not self.load_best_model_at_end:
            raise ConfigError(f"save_total_limit={self.save_total_limit} has no effect with save_strategy='no'; use 'steps' or 'epoch'.")
        if self.eval_strategy == "steps" and self.eval_steps is None:
            object.__setattr__(self, "eval_steps", self.logging_steps)
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            object.__setattr__(self, "metric_for_best_model", "loss")
        if self.metric_for_best_model is not None and self.greater_is_better is None:
            less_is_better = self.metric_for_best_model.endswith(("loss", "nll", "perplexity", "entropy"))
            object.__setattr__(self, "greater_is_better", not less_is_better)
