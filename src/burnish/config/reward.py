"""Reward models: a score for a whole answer."""

from typing import ClassVar

from burnish.config.base import config, option
from burnish.config.rows import PAIRS, RowsConfig
from burnish.config.train import ModelKind, TrainConfig


@config
class RewardConfig(RowsConfig, TrainConfig):
    """A reward model: how its scores are learnt from pairs."""

    row_formats: ClassVar[tuple[str, ...]] = PAIRS
    model_kind: ClassVar[ModelKind] = "reward"

    learning_rate: float = option(1e-4, "Peak learning rate.", above=0)
    output_dir: str = option("runs/reward", "Folder of the run: checkpoints, metrics, the final model.")
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    center_rewards_coefficient: float | None = option(None, "Weight of the term that draws the mean reward to 0, such as 0.01.", above=0)
