"""Examples as coloured tokens, lengths as a histogram: what `burnish inspect` and the preflight show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from burnish.types import Example

if TYPE_CHECKING:
    import rich.console

Decode = Callable[[list[int]], str]


def show_example(example: Example, decode: Decode | Any, console: rich.console.Console, *, max_tokens: int | None = None) -> None:
    """Print an example with trained, context and template tokens told apart, and a legend.

    `decode` is a tokenizer or a function from token ids to text. Newlines are shown as ⏎. Where there are no colours
    trained runs stand between ⟦ and ⟧. With `max_tokens` the middle is left out, and the output says how much.
    """
    raise NotImplementedError


def length_histogram(lengths: Sequence[int], max_length: int | None, width: int = 60) -> str:
    """Lengths in tokens as horizontal bars with counts; what lies over `max_length` is in a bin of its own."""
    raise NotImplementedError


def share_trained(examples: Iterable[Example]) -> float:
    """Trained tokens / all tokens, 0 to 1; 0 without any."""
    raise NotImplementedError
