"""What `burnish report` is told."""

from burnish.config.base import Config, config, option


@config
class PageConfig(Config):
    """Which runs, and where the page goes."""

    runs: list[str] = option([], "Folders of runs: the output_dir of each. They may stand without the flag.")
    output: str | None = option(None, "HTML file that is written; None: report.html in the run's folder, or here of several runs.")
    live: bool = option(False, "Serve the page while the runs go on, in place of writing it; Ctrl-C ends it.")
    host: str = option("127.0.0.1", "Address that is served. Any other than this machine's own shows the runs to the network.")
    port: int = option(8765, "Port that is served; 0: any that is free.", at_least=0, at_most=65535)
