"""From which distribution completions are sampled, and when they end."""

from burnish.config.base import Config, config, option


@config
class SamplingConfig(Config):
    """How completions are sampled. Of a checkpoint's own generation_config only its end-of-turn tokens count."""

    temperature: float = option(1.0, "Logits are divided by it; 0: always the most likely token.", at_least=0)
    top_k: int = option(0, "Only the k most likely tokens; 0: all.", at_least=0)
    top_p: float = option(1.0, "Only the most likely tokens that together have this probability.", above=0, at_most=1)
    min_p: float | None = option(None, "Only tokens with at least this share of the most likely one's probability.", at_least=0, at_most=1)
    repetition_penalty: float = option(1.0, "Above 1: tokens that stand in the context are less likely (CTRL).", above=0)
    max_completion_length: int = option(512, "Most tokens of a completion, those of tools among them.", at_least=1)
    stop: list[str] | None = option(None, "Texts that end a completion, beside the model's end of turn.")
    sampler_memory: float | None = option(None, "GiB for the keys and values of completions under way; None: by the device.", above=0)
