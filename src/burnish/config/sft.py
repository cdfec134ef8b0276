"""Supervised fine-tuning."""

from typing import ClassVar, Literal

from burnish.config.base import config, option
from burnish.config.rows import RowsConfig
from burnish.config.train import TrainConfig


@config
class SFTConfig(RowsConfig, TrainConfig):
    """Supervised fine-tuning: which tokens are trained, with which loss."""

    row_formats: ClassVar[tuple[str, ...]] = ("input_ids", "prompt_completion", "messages", "conversations", "text")

    learning_rate: float = option(2e-5, "Peak learning rate.", above=0)
    output_dir: str = option("runs/sft", "Folder of the run: checkpoints, metrics, the final model.")
    loss_type: Literal["nll", "dft"] = option("nll", "Negative log-likelihood; dft: weighted by the token's probability.")
    completion_only_loss: bool | None = option(None, "Train on completions only; None: where rows have a prompt and a completion.")
    assistant_only_loss: bool = option(False, "Train on the assistant's turns of a conversation only.")
    dataset_text_field: str = option("text", "Column that holds the text of plain rows.")
