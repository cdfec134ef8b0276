"""Which options belong to a run's identity, and an early look at the run that is in a folder already. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from burnish.checkpoint.files import CheckpointError, check_options, checkpoints
from burnish.config.parse import to_dict
from burnish.config.train import TrainConfig

FREE = {
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "report_to",
    "run_name",
    "disable_tqdm",
    "quiet",
    "logging_steps",
    "logging_first_step",
    "eval_strategy",
    "eval_steps",
    "eval_on_start",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "dataset_num_proc",
    "dataset_cache_dir",
    "max_steps",
    "num_train_epochs",
    "compute_dtype",
    "max_tokens_per_microbatch",
    "fsdp",
    "fsdp_cpu_offload",
    "ddp_timeout",
    "save_async",
    "reward_timeout",
    "reward_memory",
    "reward_workers",
    "max_reward_failures",
    "num_generations_eval",
    "eval_sampling",
    "success_reward",
    "log_completions",
    "num_completions_to_print",
}
"""Options that a resumed run may change. Of the steps and the dtype what became of them is compared instead; how a step is cut
and spread over processes changes nothing but rounding."""


def identity_of(args: TrainConfig) -> dict[str, str]:
    """What `args` add to a run's identity."""
    return {name: str(value) for name, value in to_dict(args).items() if name not in FREE}


def check_continued(args: TrainConfig) -> None:
    """Refuses a run that `output_dir`, or the checkpoint to resume from, was not made by, as far as options tell.

    The model and the data are compared when they are loaded. Raises CheckpointError.
    """
    output_dir, wanted = Path(args.output_dir), args.resume_from_checkpoint
    refuse(output_dir, wanted, overwrite=args.overwrite_output_dir)
    if args.overwrite_output_dir or wanted == "never":
        return
    given = {"steps": str(args.max_steps)} if args.max_steps > 0 else {}
    check_options(output_dir, identity_of(args) | given, path=None if wanted == "auto" else Path(wanted))


def refuse(output_dir: Path, wanted: str, *, overwrite: bool) -> None:
    """Refuses to begin anew where a run is, without `overwrite`, and to continue what `overwrite` deletes. Raises CheckpointError."""
    if overwrite and wanted not in ("auto", "never"):
        raise CheckpointError(f"overwrite_output_dir=True begins anew, and resume_from_checkpoint={wanted!r} does not; give one of them.")
    if wanted == "never" and not overwrite and (here := checkpoints(output_dir)):
        raise CheckpointError(
            f"{output_dir} holds a run already (up to {here[-1].name}) and resume_from_checkpoint is 'never'; "
            "choose another output_dir, or set overwrite_output_dir=True to delete it."
        )
