from burnish.config.base import Config, config, option


@config
class RewardsConfig(Config):
    """Rewards."""

    reward_funcs: list[str] | None = option(None, "x")
    reward_weights: list[float] | None = option(None, "x")
    reward_timeout: float = option(60.0, "x")
    reward_memory: int | None = option(None, "x")
    reward_workers: int = option(2, "x")
    max_reward_failures: float = option(0.2, "x")
