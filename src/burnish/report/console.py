"""Progress for the eyes: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.console
    import rich.progress


def memory_bytes() -> int:
    """Peak bytes allocated on the current CUDA device; without one the resident set of this process now."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # Without /proc there is only the peak, which macOS gives in bytes and others in kilobytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


TOKENS = {
    "loss": "loss {:.4g}",
    "learning_rate": "lr {:.3g}",
    "grad_norm": "grad {:.3g}",
    "tokens_per_second": "{:,.0f} tok/s",
    "trained_share": "{:.0%} trained",
}
"""Metric → how it is shown, in this order."""
ROLLOUTS = {
    "reward": "reward {:.3g}",
    "reward_stderr": "± {:.2g}",
    "frac_groups_with_signal": "signal {:.0%}",
    "kl": "kl {:.3g}",
    "entropy": "entropy {:.3g}",
    "completions/mean_length": "{:.0f} tokens",
    "completions/clipped_ratio": "{:.0%} cut off",
    "clip_ratio/region_mean": "{:.1%} clipped",
    "sampling_tokens_per_second": "{:,.0f} tok/s sampled",
    "learning_rate": "lr {:.3g}",
    "grad_norm": "grad {:.3g}",
    "loss": "loss {:.4g}",
}


class Console:
    """All a run prints. Silent on every rank but the main one."""

    def __init__(self, *, main: bool = True, live: bool | None = None, console: rich.console.Console | None = None) -> None:
        """`live=None` draws a bar where the output is a terminal. `console` is for tests and notebooks."""
        import rich.console

        self.console = console or rich.console.Console()
        """The rich console underneath, for tables and coloured tokens."""
        self._main = main
        self._live = self.console.is_terminal if live is None else live
        self._progress: rich.progress.Progress | None = None
        self._step = self._total = self._done = 0
        self._begun = time.monotonic()
        self._figures = ""

    def start(self, total: int, done: int = 0) -> None:
        """`total` steps of which `done` lie behind a resumed run: time left is judged by the others."""
        self.stop()
        self._total, self._done, self._step, self._begun = total, done, done, time.monotonic()
        if self._main and self._live:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.table import Column

            self._progress = Progress(
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                # What does not fit a narrow terminal is cut here, where it matters least.
                TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
                console=self.console,
                expand=True,
                refresh_per_second=4,
            )
            self._progress.add_task("", total=total, completed=done, left="")
            self._progress.start()

    def advance(self, step: int) -> None:
        """Move the bar to `step` (every step; cheap, prints nothing)."""
        self._step = step
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=step, description=self._figures, left=self._time_left())

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        """One line, or the bar's figures.

        Shown by name, where present: loss, learning_rate, grad_norm, tokens_per_second, trained_share (0 to 1);
        memory and time left are measured here::

            step 20/300  loss 1.234  lr 1.9e-05  grad 0.83  1,234 tok/s  61% trained  2.1 GB  4:12 left

        Of rollouts what matters is shown instead, and the loss last::

            step 20/300  reward 0.61  ± 0.03  signal 45%  entropy 0.8  96 tokens  3% cut off  512 tok/s sampled  …  loss 0.01
        """
        shown = ROLLOUTS if "reward" in logs else TOKENS
        parts = [form.format(logs[name]) for name, form in shown.items() if name in logs]
        self._figures = "  ".join([*parts, f"{memory_bytes() / 1e9:.1f} GB"])
        self.advance(step)
        if self._progress is None:
            self.message("  ".join(filter(None, [self._where(step), self._figures, self._time_left()])))

    def evaluated(self, step: int, metrics: Mapping[str, float], name: str = "eval") -> None:
        """One line for one evaluation set; the prefix `<name>_` of the metrics is left out::

        step 20/300  eval: loss 1.198  perplexity 3.31  token accuracy 0.7143
        """
        parts = (f"{key.removeprefix(f'{name}_').replace('_', ' ')} {value:.4g}" for key, value in metrics.items())
        self.message(f"{self._where(step)}  {name}: {'  '.join(parts)}")

    def message(self, text: str) -> None:
        """A sentence of its own, above the bar. Not wrapped and not interpreted as markup."""
        if self._main:
            self.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away; safe to call twice or before `start`."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _where(self, step: int) -> str:
        return f"step {step}/{self._total}" if self._total else f"step {step}"

    def _time_left(self) -> str:
        taken = self._step - self._done
        if taken <= 0 or self._step >= self._total:
            return ""
        seconds = round((time.monotonic() - self._begun) / taken * (self._total - self._step))
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"{minutes}:{seconds % 60:02} left"
