"""The data that the options name, opened. Nothing here imports torch."""

from __future__ import annotations

from typing import Any

from burnish.config.data import DataConfig
from burnish.data.dataset import Dataset, hold_out
from burnish.data.rows import Rows
from burnish.data.sources import open_rows


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
