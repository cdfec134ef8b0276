"""Progress for the eyes: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.console


def memory_bytes() -> int:
    """Peak bytes allocated on the current CUDA device; without one the resident set of this process now."""
    raise NotImplementedError


class Console:
    """All a run prints. Silent on every rank but the main one."""

    def __init__(self, *, main: bool = True, live: bool | None = None, console: rich.console.Console | None = None) -> None:
        """`live=None` draws a bar where the output is a terminal. `console` is for tests and notebooks."""
        raise NotImplementedError

    def start(self, total: int, done: int = 0) -> None:
        """`total` steps of which `done` lie behind a resumed run: time left is judged by the others."""
        raise NotImplementedError

    def advance(self, step: int) -> None:
        """Move the bar to `step` (every step; cheap, prints nothing)."""
        raise NotImplementedError

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        """One line, or the bar's figures.

        Shown by name, where present: loss, learning_rate, grad_norm, tokens_per_second, trained_share (0 to 1);
        memory and time left are measured here::

            step 20/300  loss 1.234  lr 1.9e-05  grad 0.83  1,234 tok/s  61% trained  2.1 GB  4:12 left
        """
        raise NotImplementedError

    def evaluated(self, step: int, metrics: Mapping[str, float], name: str = "eval") -> None:
        """One line for one evaluation set; the prefix `<name>_` of the metrics is left out::

            step 20/300  eval: loss 1.198  perplexity 3.31  token accuracy 0.714
        """
        raise NotImplementedError

    def message(self, text: str) -> None:
        """A sentence of its own, above the bar. Not wrapped and not interpreted as markup."""
        raise NotImplementedError

    def stop(self) -> None:
        """Take the bar away; safe to call twice or before `start`."""
        raise NotImplementedError
