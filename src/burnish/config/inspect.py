"""What is looked at of a run that samples."""

from burnish.config.base import Config, config, option


@config
class InspectSamplesConfig(Config):
    """Which samples are shown."""

    output_dir: str = option(help="Folder of the run.")
    model_name_or_path: str | None = option(None, "Folder or hub id of the tokenizer; None: output_dir.")
    rows: int = option(3, "Samples to show.", at_least=1)
    step: int | None = option(None, "Optimizer steps that were done when it was sampled; None: any.", at_least=0)
    set: str | None = option(None, "train, or the name of an evaluation set such as eval; None: any.")
