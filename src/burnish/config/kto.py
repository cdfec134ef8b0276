"""Kahneman-Tversky optimisation: single answers that are called desirable or not."""

from typing import ClassVar, Literal

from burnish.config.base import config, option
from burnish.config.reference import KnownReferenceConfig
from burnish.config.rows import PAIRS, RowsConfig
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError


@config
class KTOConfig(KnownReferenceConfig, RowsConfig, TrainConfig):
    """Kahneman-Tversky optimisation: with which loss labelled answers are learnt from."""

    row_formats: ClassVar[tuple[str, ...]] = (*PAIRS, "unpaired")

    learning_rate: float = option(1e-6, "Peak learning rate.", above=0)
    output_dir: str = option("runs/kto", "Folder of the run: checkpoints, metrics, the final model.")
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    loss_type: Literal["kto", "apo_zero_unpaired"] = option("kto", "KTO; apo_zero_unpaired: with its reference point at 0.")
    beta: float = option(0.1, "How much the reference holds the policy back.", above=0)
    desirable_weight: float = option(1.0, "Weight of desirable answers.", at_least=0)
    undesirable_weight: float = option(1.0, "Weight of undesirable answers.", at_least=0)

    def __post_init__(self) -> None:
        if not self.desirable_weight and not self.undesirable_weight:
            raise ConfigError("desirable_weight and undesirable_weight are both 0, and nothing would be learnt; give one of them a weight.")
        super().__post_init__()
