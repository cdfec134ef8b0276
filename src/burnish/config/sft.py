"""Supervised fine-tuning."""

from typing import Literal

from burnish.config.base import config, option
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError


@config
class SFTConfig(TrainConfig):
    """Supervised fine-tuning: which tokens are trained, with which loss."""

    learning_rate: float = option(2e-5, "Peak learning rate.", above=0)
    output_dir: str = option("runs/sft", "Folder of the run: checkpoints, metrics, the final model.")
    loss_type: Literal["nll", "dft"] = option("nll", "Negative log-likelihood; dft: weighted by the token's probability.")
    completion_only_loss: bool | None = option(None, "Train on completions only; None: where rows have a prompt and a completion.")
    assistant_only_loss: bool = option(False, "Train on the assistant's turns of a conversation only.")
    max_length: int | None = option(1024, "Longest row, in tokens; None: any.", at_least=2)
    truncation_mode: Literal["error", "drop", "keep_start", "keep_end"] = option("drop", "What becomes of longer rows; they are counted.")
    dataset_text_field: str = option("text", "Column that holds the text of plain rows.")
    dataset_num_proc: int | None = option(None, "Processes that tokenise; None: by the number of cores.", at_least=1)
    dataset_cache_dir: str | None = option(None, "Where tokenised rows are kept; None: the user's cache folder.")
    chat_template_path: str | None = option(None, "Jinja file, or folder or hub id of a tokenizer, whose chat template is used.")
    eos_token: str | None = option(None, "Token that ends an example; None: the tokenizer's.")

    def __post_init__(self) -> None:
        if self.max_length is None and self.truncation_mode != "drop":
            raise ConfigError(f"truncation_mode={self.truncation_mode!r} has no effect with max_length=None; give a length.")
        super().__post_init__()
