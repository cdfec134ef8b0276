"""Odds ratio preference optimisation."""

from typing import ClassVar

from burnish.config.base import config, option
from burnish.config.rows import PAIRS, RowsConfig
from burnish.config.train import TrainConfig


@config
class ORPOConfig(RowsConfig, TrainConfig):
    """Odds ratio preference optimisation: likelihood of the chosen answer, and its odds against the rejected one."""

    row_formats: ClassVar[tuple[str, ...]] = PAIRS

    learning_rate: float = option(1e-6, "Peak learning rate.", above=0)
    output_dir: str = option("runs/orpo", "Folder of the run: checkpoints, metrics, the final model.")
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    beta: float = option(0.1, "Weight of the odds ratio beside the likelihood; the paper's λ.", above=0)
