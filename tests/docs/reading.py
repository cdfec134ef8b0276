"""Commands of the documentation and of recipes, checked without being run."""

from __future__ import annotations

import contextlib
import io

import pytest

from burnish.cli import experimental
from burnish.cli import main as cli


class ParsedError(Exception):
    """Raised in place of running a command whose options were right."""


def parse(given: list[str], where: str) -> None:
    """Checks options as the command would, and runs nothing."""
    plain = experimental.parse

    def only(*args, **options):
        plain(*args, **options)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        for module in (cli, experimental):
            patch.setattr(module, "parse", only)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(ParsedError):
            assert cli.main(given) == 0, f"{where}: burnish {' '.join(given)} is refused: {said.getvalue()}"
            assert {"--help", "--version"} & set(given), f"{where}: burnish {' '.join(given)} parses no options."
