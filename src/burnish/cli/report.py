"""`burnish report`: a page about runs, as a file or served while they go on. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from burnish.config.report import PageConfig
from burnish.config.values import ConfigError
from burnish.report.page.page import write_report
from burnish.report.page.runs import check_run

VALUED = ("--output", "--host", "--port", "--config")
WORDS = ("true", "false")


def with_runs(args: Sequence[str]) -> list[str]:
    """The words that belong to no option as those of ``--runs``, wherever they stand.

    ``["a", "--port", "80", "b", "--live"]`` → ``["--port", "80", "--live", "--runs", "a", "b"]``.
    """
    runs, rest, words = list[str](), list[str](), iter(args)
    for word in words:
        if word == "--runs":
            continue
        if word.startswith("-"):
            rest.append(word)
            rest += [value for value in [next(words, None)] if value is not None] if word in VALUED else []
        elif rest and rest[-1] == "--live" and word in WORDS:
            rest.append(word)
        else:
            runs.append(word)
    return [*rest, "--runs", *runs] if runs else rest


def report(args: PageConfig) -> int:
    """Writes the page and says where it is, or serves it until Ctrl-C. Raises ConfigError, PageError."""
    runs = list(dict.fromkeys(map(Path, args.runs)))
    if not runs:
        raise ConfigError("burnish report needs a run; give the output_dir of one training or of several.")
    if args.live and args.output is not None:
        raise ConfigError(f"output={args.output!r} has no effect with live=True, which writes no file; leave one of them out.")
    if not args.live and (said := args.changed("host", "port")):
        raise ConfigError(f"{said[0]} has no effect without live=True; add --live.")
    for run in runs:
        check_run(run)
    if args.live:
        from burnish.report.page.live import serve

        serve(runs, args.host, args.port, lambda url: print(f"The report is at {url}, and follows the run; Ctrl-C ends it.", flush=True))
        return 0
    output = Path(args.output) if args.output else (runs[0] if len(runs) == 1 else Path()) / "report.html"
    print(f"The report is {write_report(runs, output)}; open it in a browser.")
    return 0
