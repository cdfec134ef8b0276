"""ProFit. Nothing here imports torch."""

from typing import Literal

from burnish.config.base import config, option
from burnish.config.sft import SFTConfig
from burnish.config.values import ConfigError


@config
class ProFitConfig(SFTConfig):
    """Which of the trained tokens the loss counts; all else is as in SFT."""

    output_dir: str = option("runs/profit", "Folder of the run: checkpoints, metrics, the final model.")
    prob_threshold: float = option(0.1, "Probability that divides the tokens.", above=0, below=1)
    threshold_direction: Literal["higher", "lower"] = option(
        "higher", "Count tokens of a higher probability; or, as the paper's control, of a lower one."
    )

    def __post_init__(self) -> None:
        if self.loss_type != "nll":
            raise ConfigError(f"loss_type={self.loss_type!r} is refused: ProFit counts a token or leaves it out; use SFT for weights.")
        super().__post_init__()


CONFIG = ProFitConfig
"""What `burnish experimental profit` parses."""
