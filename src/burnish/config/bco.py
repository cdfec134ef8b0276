"""Binary classifier optimisation."""

from typing import ClassVar, Literal

from burnish.config.base import config, option
from burnish.config.reference import KnownReferenceConfig
from burnish.config.rows import PAIRS, RowsConfig
from burnish.config.train import TrainConfig


@config
class BCOConfig(KnownReferenceConfig, RowsConfig, TrainConfig):
    """Binary classifier optimisation: how labelled answers are told apart."""

    row_formats: ClassVar[tuple[str, ...]] = (*PAIRS, "unpaired")

    learning_rate: float = option(5e-7, "Peak learning rate.", above=0)
    output_dir: str = option("runs/bco", "Folder of the run: checkpoints, metrics, the final model.")
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    loss_type: Literal["bco", "bco_trl"] = option("bco", "Shift by the mean of both labels' mean rewards; bco_trl: of all rewards.")
    beta: float = option(0.1, "How much the reference holds the policy back.", above=0)
