"""Process reward models: a verdict on each step of an answer."""

from typing import ClassVar

from burnish.config.base import config, option
from burnish.config.rows import RowsConfig
from burnish.config.train import ModelKind, TrainConfig


@config
class PRMConfig(RowsConfig, TrainConfig):
    """A process reward model: where the steps of an answer end, and which of them are learnt from."""

    row_formats: ClassVar[tuple[str, ...]] = ("stepwise",)
    model_kind: ClassVar[ModelKind] = "process_reward"

    learning_rate: float = option(1e-5, "Peak learning rate.", above=0)
    output_dir: str = option("runs/prm", "Folder of the run: checkpoints, metrics, the final model.")
    disable_dropout: bool = option(True, "Set every dropout of the model to 0.")
    step_separator: str = option("\n", "Text that ends each step; its last token has the verdict.")
    train_on_last_step_only: bool = option(False, "Learn from the verdict on the last step only.")
