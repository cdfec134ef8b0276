"""`burnish sft`: from three configurations to a trained model on disk."""

from __future__ import annotations

import sys
from typing import Any

from burnish.cli.sets import open_sets
from burnish.config.data import DataConfig
from burnish.config.model import ModelConfig
from burnish.config.train import TrainConfig
from burnish.models.export import check_export
from burnish.models.memory import device_memory
from burnish.trainer import Trainer


def quiet_bars() -> None:
    """transformers draws a bar for each load and save, which in a log file is noise."""
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()


def run_training(trainer_class: type[Trainer[Any]], model: ModelConfig, data: DataConfig, args: TrainConfig) -> int:
    """Trains, saves, and reads the saved model back where the memory allows."""
    quiet_bars()
    train, held_out = open_sets(data, args.seed)
    trainer = trainer_class(
        str(model.model_name_or_path), args, train_dataset=train, eval_dataset=held_out, model_config=model, data_config=data
    )
    for note in (*model.notes, *data.notes):
        trainer.console.message(note)
    trainer.train()
    trainer.save_model()
    if trainer.here.main:
        words = f"The {'adapter' if model.use_peft or model.adapter_name_or_path else 'model'} is in {args.output_dir}"
        if trainer.memory().weights < 0.25 * device_memory(trainer.here.device):
            words += f"; read back with transformers, its logits differ by {check_export(trainer.model, trainer.directory.path):.1g}"
        trainer.console.message(f"{words}.")
    return 0
