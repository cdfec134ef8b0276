"""Contrastive preference optimisation, SimPO and AlphaPO."""

from typing import ClassVar, Literal

from burnish.config.base import config, option
from burnish.config.rows import PAIRS, RowsConfig
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError


@config
class CPOConfig(RowsConfig, TrainConfig):
    """Contrastive preference optimisation: with which loss pairs are learnt from, without a reference."""

    row_formats: ClassVar[tuple[str, ...]] = PAIRS

    learning_rate: float = option(1e-6, "Peak learning rate.", above=0)
    output_dir: str = option("runs/cpo", "Folder of the run: checkpoints, metrics, the final model.")
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    loss_type: Literal["sigmoid", "hinge", "ipo", "simpo", "alphapo"] = option("sigmoid", "Loss; alphapo: simpo with cpo_alpha=0.")
    beta: float = option(0.1, "Scale of the margin between the answers.", above=0)
    label_smoothing: float = option(0.0, "Share of pairs that are taken to be the wrong way round.", at_least=0, below=0.5)
    cpo_alpha: float = option(1.0, "Weight of the chosen answer's likelihood; SimPO's and AlphaPO's papers have 0.", at_least=0)
    simpo_gamma: float = option(0.5, "With simpo: margin by which the chosen answer should win.", at_least=0)
    alpha: float = option(0.0, "AlphaPO: shape of the reward, (1 - p^-α) / α; 0: log p.")

    def __post_init__(self) -> None:
        if self.loss_type == "alphapo":
            if self.cpo_alpha and (said := self.changed("cpo_alpha")):
                raise ConfigError(f"loss_type='alphapo' is simpo with cpo_alpha=0, not {said[0]}; use loss_type='simpo'.")
            object.__setattr__(self, "loss_type", "simpo")
            object.__setattr__(self, "cpo_alpha", 0.0)
        if self.label_smoothing and self.loss_type in ("hinge", "ipo"):
            smoothing = f"label_smoothing={self.label_smoothing!r}"
            raise ConfigError(f"{smoothing} has no effect on loss_type={self.loss_type!r}; leave it out, or use sigmoid or simpo.")
        if (said := self.changed("simpo_gamma")) and self.loss_type != "simpo":
            raise ConfigError(f"{said[0]} has no effect on loss_type={self.loss_type!r}; leave it out, or use simpo.")
        super().__post_init__()
