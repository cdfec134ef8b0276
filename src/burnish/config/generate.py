"""What is sampled by `burnish generate`, and where it goes."""

from burnish.config.base import config, option
from burnish.config.sampling import SamplingConfig


@config
class GenerateConfig(SamplingConfig):
    """Which prompts are answered, and how often."""

    dataset_name: str = option(help="Prompts: hub id, local file (JSONL, JSON, CSV, Parquet) or folder.")
    dataset_config: str | None = option(None, "Configuration of a hub dataset.")
    dataset_split: str = option("train", "Split to read, or a slice of one: train[:100].")
    output_file: str = option(help="JSONL file that is written: a line for each prompt, with its completions.")
    overwrite_output_file: bool = option(False, "Replace the file if it is there.")
    num_generations: int = option(1, "Completions of each prompt.", at_least=1)
    seed: int = option(0, "Seed of the sampling; a completion depends on it, its prompt's row and its own number alone.")
    chat_template_path: str | None = option(None, "Jinja file, or folder or hub id of a tokenizer, whose chat template is used.")
    eos_token: str | None = option(None, "Token that ends a completion; None: the tokenizer's.")
