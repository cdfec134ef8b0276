"""How rows become tokens."""

from typing import ClassVar, Literal

from burnish.config.base import Config, config, option
from burnish.config.values import ConfigError

PAIRS = ("preference_ids", "scored", "preference")


@config
class RowsConfig(Config):
    """How rows are read, and how long they may be."""

    row_formats: ClassVar[tuple[str, ...]] = ()
    """The formats that the method reads: keys of `burnish.data.formats.FORMATS`."""

    max_length: int | None = option(1024, "Longest row, in tokens; None: any.", at_least=2)
    truncation_mode: Literal["error", "drop", "keep_start", "keep_end"] = option("drop", "What becomes of longer rows; they are counted.")
    dataset_num_proc: int | None = option(None, "Processes that tokenise; None: by the number of cores.", at_least=1)
    dataset_cache_dir: str | None = option(None, "Where tokenised rows are kept; None: the user's cache folder.")
    chat_template_path: str | None = option(None, "Jinja file, or folder or hub id of a tokenizer, whose chat template is used.")
    eos_token: str | None = option(None, "Token that ends an example; None: the tokenizer's.")

    def __post_init__(self) -> None:
        if self.max_length is None and self.truncation_mode != "drop":
            raise ConfigError(f"truncation_mode={self.truncation_mode!r} has no effect with max_length=None; give a length.")
        super().__post_init__()
