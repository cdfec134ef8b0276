"""Which runs are laid side by side."""

from burnish.config.base import Config, config, option
from burnish.config.values import ConfigError


@config
class CompareConfig(Config):
    """Which runs are laid side by side, and what is shown of them."""

    runs: list[str] = option(help="Folders of the runs, two or more; the words before the first option are these.")
    metrics: list[str] = option([], "Metrics to show, by name or with * and ?, such as 'eval_*'; none: all that the runs share.")
    at: int | None = option(None, "Look at the runs as they were after so many steps; None: as they are.", at_least=0)
    json: bool = option(False, "Print one JSON object and nothing else.")

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise ConfigError(f"{' '.join(self.runs) or 'No run'} alone cannot be compared; name two runs or more.")
        super().__post_init__()
