"""Curves of growth as SVG, both axes logarithmic: points with their range, and the slope that is expected as a broken line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import number

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 260, 60, 44, 16, 24
STYLE = (
    "text{font:12px sans-serif;fill:#555}.grid{stroke:#8884;fill:none}.expected{stroke:#5b8def;fill:none;stroke-dasharray:5 4}"
    ".measured{stroke:#d2691e;fill:none;stroke-width:2}.dot{fill:#d2691e}.names .a{fill:#d2691e}.names .b{fill:#5b8def}"
)
Points = Sequence[Mapping[str, Any]]


def drawn(points: Points, expected: float, axis: str, heading: str, scale: float) -> str:
    """One curve: `heading` over `axis`, numbers divided by `scale`."""
    xs = [math.log10(point["x"]) for point in points]
    lows, mids, highs = ([math.log10(point[name] / scale) for point in points] for name in ("low", "median", "high"))
    line = [sum(mids) / len(mids) + expected * (x - sum(xs) / len(xs)) for x in xs]
    bottom, top = min(*lows, *line), max(*highs, *line)
    middle, half = (bottom + top) / 2, max((top - bottom) / 2, 0.25) * 1.1  # what is flat is drawn flat

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - xs[0]) / (xs[-1] - xs[0] or 1.0), 1)

    def up(y: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (middle + half - y) / (2 * half), 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>']
    for y in _ticks(middle - half, middle + half):
        parts.append(f'<path class="grid" d="M{LEFT} {up(y)}H{WIDTH - RIGHT}"/><text x="4" y="{up(y) + 4}">{number(10**y)}</text>')
    parts += [
        f'<text text-anchor="middle" x="{across(x)}" y="{HEIGHT - 26}">{_count(point["x"])}</text>'
        for x, point in zip(xs, points, strict=True)
    ]
    parts.append(_polyline("expected", [(across(x), up(y)) for x, y in zip(xs, line, strict=True)]))
    parts.append(_polyline("measured", [(across(x), up(y)) for x, y in zip(xs, mids, strict=True)]))
    for x, low, mid, high in zip(xs, lows, mids, highs, strict=True):
        parts.append(
            f'<circle class="dot" cx="{across(x)}" cy="{up(mid)}" r="3"/><path class="measured" d="M{across(x)} {up(low)}V{up(high)}"/>'
        )
    names = f'<tspan class="a">{heading}</tspan> by {axis}, and <tspan class="b">the expected slope</tspan>'
    return "\n".join([*parts, f'<text class="names" x="{LEFT}" y="{HEIGHT - 6}">{names}</text></svg>', ""])


def _ticks(bottom: float, top: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten; over many decades of those powers alone."""
    steps = (1,) if top - bottom > 2.5 else (1, 2, 5)
    every = [math.log10(one) + power for power in range(math.floor(bottom), math.ceil(top) + 1) for one in steps]
    return [y for y in every if bottom <= y <= top]


def _count(x: float) -> str:
    if x >= 1e6:
        return f"{x / 1e6:.3g} million"
    return f"{x / 1e3:.3g}k" if x >= 1e4 else f"{x:g}"


def _polyline(kind: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="{kind}" points="' + " ".join(f"{x},{y}" for x, y in points) + '"/>'
