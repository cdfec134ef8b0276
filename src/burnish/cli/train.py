"""`burnish sft`: from three configurations to a trained model on disk."""

from __future__ import annotations

from typing import Any

from burnish.config.data import DataConfig
from burnish.config.model import ModelConfig
from burnish.config.train import TrainConfig
from burnish.data.dataset import Dataset, hold_out
from burnish.data.rows import Rows
from burnish.data.sources import open_rows
from burnish.models.export import check_export
from burnish.models.memory import device_memory
from burnish.trainer import Trainer


def open_sets(data: DataConfig, seed: int) -> tuple[Dataset, Any]:
    """The training set and the evaluation set or sets that the options name. Raises DataError."""
    stream: Any = {"streaming": data.dataset_streaming}
    if data.datasets:
        parts = [open_rows(one.path, config_name=one.name, split=one.split, columns=one.columns, **stream) for one in data.datasets]
        weights = tuple(one.weight for one in data.datasets)
        train = Dataset(sources=tuple(parts), weights=weights if len(parts) > 1 else None)
    else:
        rows = open_rows(data.dataset_name, config_name=data.dataset_config, split=data.dataset_train_split, **stream)
        train = Dataset(sources=(rows,))
    if data.eval_datasets:
        return train, {name: open_rows(path) for name, path in data.eval_datasets.items()}
    if data.dataset_test_split is not None:
        return train, open_rows(data.dataset_name, config_name=data.dataset_config, split=data.dataset_test_split)
    if data.test_split_size is not None:
        halves = [hold_out(rows, data.test_split_size, seed) for rows in train.sources if isinstance(rows, Rows)]
        train = Dataset(sources=tuple(kept for kept, _ in halves), weights=train.weights)
        return train, Dataset(sources=tuple(held for _, held in halves))
    return train, None


def run_training(trainer_class: type[Trainer[Any]], model: ModelConfig, data: DataConfig, args: TrainConfig) -> int:
    """Trains, saves, and reads the saved model back where the memory allows."""
    train, held_out = open_sets(data, args.seed)
    trainer = trainer_class(
        str(model.model_name_or_path), args, train_dataset=train, eval_dataset=held_out, model_config=model, data_config=data
    )
    trainer.train()
    trainer.save_model()
    if trainer.here.main:
        words = f"The {'adapter' if model.use_peft or model.adapter_name_or_path else 'model'} is in {args.output_dir}"
        if trainer.memory().weights < 0.25 * device_memory(trainer.here.device):
            words += f"; read back with transformers, its logits differ by {check_export(trainer.model, trainer.directory.path):.1g}"
        trainer.console.message(f"{words}.")
    return 0
