"""The lines at the foot of a terminal that change while a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.console
    import rich.live

WIDTH = 16
"""Cells of the bar, and of the curve under it."""
LEVELS = "▁▂▃▄▅▆▇█"
LINES = 2
"""Of figures; what does not fit on them is left out, the last first."""
NARROW = 60
"""Cells below which there is no room for a bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is shown at one moment."""

    step: int
    total: int
    words: str
    """Beside the bar: time left, and what the step is at."""
    figures: tuple[str, ...] = ()
    curve: tuple[float, ...] = ()
    """The last values of what matters most."""


class Live:
    """Drawn anew four times a second, from what `frame` gives then; what is printed meanwhile stands above it."""

    def __init__(self, console: rich.console.Console, frame: Callable[[], Frame]) -> None:
        from rich.live import Live as RichLive

        drawn = lambda: draw(frame(), console)  # noqa: E731
        self._live: rich.live.Live = RichLive(get_renderable=drawn, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def stop(self) -> None:
        """Takes the lines away."""
        self._live.stop()


def draw(frame: Frame, console: rich.console.Console) -> rich.console.RenderableType:
    """Bar and curve on the left, words and figures beside them; on a narrow terminal the latter alone."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = console.width >= NARROW
    width = console.width - (WIDTH + 2 if bar else 0)
    grid = Table.grid(padding=(0, 2, 0, 0))
    if bar:
        grid.add_column(width=WIDTH)
    grid.add_column(no_wrap=True, overflow="ellipsis", width=width)
    first = Text.assemble((f"{frame.step:,}/{frame.total:,}", "bold"), f"  {frame.words}")
    grid.add_row(*([ProgressBar(frame.total, frame.step, width=WIDTH, complete_style="cyan", finished_style="cyan")] if bar else []), first)
    if figures := wrapped(frame.figures, width, LINES):
        curve = "" if console.options.ascii_only else spark(frame.curve)
        grid.add_row(*([Text(curve, "cyan")] if bar else []), Text("\n".join(figures)))
    return grid


def spark(values: Sequence[float]) -> str:
    """The last values as a curve of blocks, from the least to the most of them; none of a single one, a gap where one is not finite."""
    last = list(values)[-WIDTH:]
    finite = [value for value in last if abs(value) < float("inf")]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    if len(finite) < 2:
        return ""
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    return "".join(LEVELS[round((value - low) * scale)] if abs(value) < float("inf") else " " for value in last)


def wrapped(parts: Sequence[str], width: int, most: int | None = None) -> list[str]:
    """Parts two blanks apart, none cut in two, in lines of `width`; the parts beyond `most` lines are left out."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines[:most]
