"""`burnish sft`: from three configurations to a trained model on disk."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from burnish.cli.sets import open_sets
from burnish.config.data import DataConfig
from burnish.config.model import ModelConfig
from burnish.config.online import OnlineConfig
from burnish.config.train import TrainConfig
from burnish.models.export import check_export, sample_logits
from burnish.models.memory import device_memory
from burnish.trainer import Trainer


def quiet_bars(*, quiet: bool = False) -> None:
    """transformers draws a bar for each load and save, which in a log file is noise."""
    if quiet or not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()


def run_training(trainer_class: type[Trainer[Any]], model: ModelConfig, data: DataConfig, args: TrainConfig) -> int:
    """Trains, saves, reads the saved model back where the memory allows, and says what can be looked at next."""
    quiet_bars(quiet=args.quiet)
    train, held_out = open_sets(data, args.seed)
    trainer = trainer_class(
        str(model.model_name_or_path), args=args, train_dataset=train, eval_dataset=held_out, model_config=model, data_config=data
    )
    trainer.console.warn(*model.notes, *data.notes)
    with trainer.events.refusals():
        trainer.directory.hold()  # until the model is written, and not only while it trains
    try:
        trainer.train()
        _export(trainer, "adapter" if model.use_peft or model.adapter_name_or_path else "model")
    finally:
        trainer.directory.release()
    trainer.console.message(*_next(args))
    return 0


def _next(args: TrainConfig) -> list[str]:
    folder = shlex.quote(args.output_dir)
    samples = [f"burnish inspect samples --output_dir {folder}"] if isinstance(args, OnlineConfig) else []
    commands = [*samples, f"burnish report {folder}", f"burnish compare {folder} ANOTHER_RUN"]
    return [f"{'      ' if i else 'Next: '}{command}" for i, command in enumerate(commands)]


def _export(trainer: Trainer[Any], what: str) -> None:
    trainer.save_model()
    own = next(trainer.model.parameters()).dtype
    fits = trainer.memory.whole < 0.25 * device_memory(trainer.here.device)
    wanted = sample_logits(trainer.model, trainer.policy.logits) if fits else None
    if trainer.here.main:
        words = f"The {what} is in {trainer.args.output_dir}"
        if wanted is not None:
            words += f"; read back with transformers, its logits differ by {check_export(wanted, trainer.directory.path, own):.1g}"
            words += "" if wanted.dtype == own else f" (shards compute in {str(wanted.dtype).removeprefix('torch.')})"
        trainer.console.message(f"{words}.")
