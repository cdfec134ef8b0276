"""Which prompts completions are sampled for."""

from typing import Any, ClassVar

from burnish.config.base import Config, config, option


@config
class PromptsConfig(Config):
    """How rows are read that have a prompt, and columns for the rewards."""

    row_formats: ClassVar[tuple[str, ...]] = ("prompt",)

    max_prompt_length: int | None = option(None, "Longest prompt, in tokens; longer ones are left out, and counted. None: any.", at_least=1)
    chat_template_path: str | None = option(None, "Jinja file, or folder or hub id of a tokenizer, whose chat template is used.")
    chat_template_kwargs: dict[str, Any] | None = option(None, "Arguments of the chat template, beside those of a row.")
    eos_token: str | None = option(None, "Token that ends a completion, beside the model's own; None: the tokenizer's.")
