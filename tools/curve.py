"""The curve of a run that learns from rewards, for a page: what was logged, as JSON, and a drawing of it, as SVG.

    python tools/curve.py runs/smollm2-chain-sum rewards/numeric/mean eval_test_accuracy docs/curves/chain_sum

writes `chain_sum.json` and `chain_sum.svg`: a share of the sampled answers of every step, and one of the held-out set with its standard
error where it was evaluated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from burnish.report.metrics import read_metrics

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 300, 48, 40, 16
STYLE = (
    "text{font:12px sans-serif;fill:#555}.grid{stroke:#8884;fill:none}.train{stroke:#5b8def;fill:none;opacity:.55}"
    ".held{stroke:#d2691e;fill:none;stroke-width:2}.dot{fill:#d2691e}.names .a{fill:#5b8def}.names .b{fill:#d2691e}"
)


def main() -> None:
    if len(sys.argv) != 5:
        raise SystemExit("usage: curve.py RUN METRIC HELD_OUT_METRIC OUTPUT")
    run, sampled, metric, output = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    lines = read_metrics(run / "metrics.jsonl")
    train = [(line["step"], round(line[sampled], 4)) for line in lines if sampled in line]
    held = [(line["step"], round(line[metric], 4), round(line.get(f"{metric}_stderr", 0.0), 4)) for line in lines if metric in line]
    for name, found in ((sampled, train), (metric, held)):
        if not found:
            known = sorted(set().union(*lines))
            raise SystemExit(f"{run / 'metrics.jsonl'}: no line has {name!r}; there are {', '.join(known)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    record = {"columns": {"train": ["step", sampled], "held_out": ["step", metric, "standard error"]}, "train": train, "held_out": held}
    output.with_suffix(".json").write_text(json.dumps(record) + "\n")
    output.with_suffix(".svg").write_text(drawn(train, held))
    print(f"{output}.json and .svg: {len(train)} steps, {held[0][1]:.1%} to {held[-1][1]:.1%} of the held-out")


def drawn(train: Sequence[tuple[int, float]], held: Sequence[tuple[int, float, float]]) -> str:
    last = max(train[-1][0], held[-1][0])

    every = next(one * 10**power for power in range(9) for one in (1, 2, 5) if last / (one * 10**power) <= 8)

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 12) * step / last, 1)

    def y(share: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - share), 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path class="grid" d="M{LEFT} {y(share)}H{WIDTH - 12}"/><text x="6" y="{y(share) + 4}">{share:.0%}</text>')
    parts += [f'<text x="{x(step) - 8}" y="{HEIGHT - 20}">{step}</text>' for step in range(0, last + 1, every)]
    parts.append('<polyline class="train" points="' + " ".join(f"{x(step)},{y(reward)}" for step, reward in train) + '"/>')
    parts.append('<polyline class="held" points="' + " ".join(f"{x(step)},{y(share)}" for step, share, _ in held) + '"/>')
    for step, share, error in held:
        parts.append(f'<circle class="dot" cx="{x(step)}" cy="{y(share)}" r="3"/>')
        parts.append(f'<path class="held" d="M{x(step)} {y(min(1.0, share + error))}V{y(max(0.0, share - error))}"/>')
    names = '<tspan class="a">sampled answers</tspan> and <tspan class="b">held-out questions</tspan>, by optimizer step'
    return "\n".join([*parts, f'<text class="names" x="{LEFT}" y="{HEIGHT - 4}">Right: {names}</text></svg>', ""])


if __name__ == "__main__":
    main()
