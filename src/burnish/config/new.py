"""What `burnish new` makes: where, for which method, with which model."""

from typing import Literal

from burnish.config.base import Config, config, option

DEMO = "demo"
"""The model that comes with Burnish."""
Method = Literal["sft", "dpo", "kto", "orpo", "cpo", "bco", "reward", "prm", "grpo", "rloo"]


@config
class NewConfig(Config):
    """What is written."""

    project: str | None = option(None, "Folder to make; it may stand first, without its flag: burnish new sums.")
    method: Method = option("sft", "What the project trains by.")
    model: str = option("demo", "Hub id or folder of the model; demo: the small one that comes with Burnish, which trains in a minute.")
