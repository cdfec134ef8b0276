"""Which rows are trained on, and which are held out."""

from burnish.config.base import Config, config, option
from burnish.config.values import ConfigError


@config
class DatasetSource(Config):
    """One source of a mixture."""

    path: str = option(help="Hub id, local file (JSONL, JSON, CSV, Parquet) or folder.")
    name: str | None = option(None, "Configuration of a hub dataset.")
    split: str = option("train", "Split to read.")
    columns: list[str] | None = option(None, "Columns to keep; None: all.")
    weight: float = option(1.0, "Share of the mixture, relative to the others' weights.", above=0)


@config
class DataConfig(Config):
    """Which rows are trained on."""

    dataset_name: str | None = option(None, "Hub id, local file (JSONL, JSON, CSV, Parquet) or folder.")
    dataset_config: str | None = option(None, "Configuration of a hub dataset.")
    dataset_train_split: str = option("train", "Split to train on.")
    dataset_test_split: str | None = option(None, "Split to evaluate on.")
    dataset_streaming: bool = option(False, "Read rows as they are needed; then max_steps says how long to train.")
    datasets: list[DatasetSource] | None = option(None, "A mixture (in YAML): a list of path, name, split, columns, weight.")
    eval_datasets: dict[str, str] | None = option(None, "Named evaluation sets: a mapping of name to hub id, file or folder.")
    test_split_size: int | float | None = option(
        None,
        "Hold out so many of the training rows (or, below 1, this share of them) for evaluation.",
        where=lambda size: 0 < size < 1 or (size >= 1 and size == int(size)),
        said="an integer of at least 1, a number above 0 and below 1, or None",
    )

    def __post_init__(self) -> None:
        if self.dataset_name is not None and self.datasets:
            raise ConfigError("dataset_name and datasets both say what to train on; give one of them.")
        single = self.changed("dataset_config", "dataset_train_split")
        if self.datasets and single:
            raise ConfigError(f"{single[0]} has no effect on datasets; say name and split for each source of the mixture.")
        held_out = self.changed("dataset_test_split", "eval_datasets", "test_split_size")
        if len(held_out) > 1:
            raise ConfigError(f"{held_out[0]} and {held_out[1]} both say what to evaluate on; give one of them.")
        if self.datasets and self.dataset_test_split is not None:
            raise ConfigError("dataset_test_split has no effect on datasets; use eval_datasets or test_split_size.")
        if self.dataset_streaming and self.test_split_size is not None:
            raise ConfigError("test_split_size needs to count the rows, which dataset_streaming=True does not; use eval_datasets.")
        super().__post_init__()
