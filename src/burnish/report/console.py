"""All that a run says while it goes on: a few live lines on a terminal, plain lines elsewhere, next to nothing where it is to be quiet."""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from burnish.report.clock import Clock, words
from burnish.report.live import WIDTH, Frame, Live, wrapped

if TYPE_CHECKING:
    import rich.console

    from burnish.types import TokenTree


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
    "rewards/accuracies": "{:.0%} right",
    "rewards/margins": "margin {:.3g}",
    "accuracy": "{:.0%} right",
    "margin": "margin {:.3g}",
    "kl": "kl {:.3g}",
    "learning_rate": "lr {:.3g}",
    "grad_norm": "grad {:.3g}",
    "tokens_per_second": "{:,.0f} tok/s",
    "trained_share": "{:.0%} trained",
}
"""Metric → how it is shown, in this order."""
ROLLOUTS = {
    "reward": "reward {:.3g}",
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


STDERR = "_stderr"
"""Behind the name of a metric: its standard error."""
CLOSING = ("reward", "loss", "rewards/accuracies", "rewards/margins", "accuracy", "kl", "entropy")
"""What is told of training when it is over."""
LONG = 2.0
"""Seconds after which it is said how long a phase has been going on."""


class Console:
    """All a run prints. Silent on every rank but the main one; there, `quiet` lets through warnings and the closing line alone."""

    def __init__(
        self, *, main: bool = True, live: bool | None = None, quiet: bool = False, console: rich.console.Console | None = None
    ) -> None:
        """`live=None` draws live lines where the output is a terminal. `console` is for tests and notebooks."""
        import rich.console

        self._loud = console or rich.console.Console()
        self.console = rich.console.Console(quiet=True) if quiet or not main else self._loud
        """The rich console underneath, for tables and coloured tokens."""
        self._main = main
        # asked of the file itself: FORCE_COLOR makes rich take a log for a terminal
        terminal = self._loud.file.isatty() and not self._loud.is_dumb_terminal
        self._shows_live = main and not quiet and (terminal if live is None else live)
        self._live: Live | None = None
        self._forget(0, 0)

    def start(self, total: int, done: int = 0) -> None:
        """`total` steps of which `done` lie behind a resumed run: time left is judged by the others."""
        self.stop()
        self._forget(total, done)
        if self._shows_live:
            self._live = Live(self._loud, self._frame)

    def _forget(self, total: int, done: int) -> None:
        self._clock, self._label, self._aside = Clock(total, done), "", ""
        self._figures: tuple[str, ...] = ()
        self._curve: deque[float] = deque(maxlen=WIDTH)
        self._first: dict[str, dict[str, float]] = {}
        self._last: dict[str, dict[str, float]] = {}
        self._times: Counter[str] = Counter()
        """Of training and of each evaluation set: the first and the last of each metric, and how many times there were some."""

    # What goes on within a step, and beside the steps

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """What a long step is at, such as "sampling", and how far that is (cheap, prints nothing)."""
        self._label = f"{name} {done:,}/{total:,}" if total else name
        if not self._aside:
            self._clock.enter(name)

    @contextmanager
    def aside(self, phase: str) -> Iterator[None]:
        """Around what is no step, and does not count as one: "saving"."""
        self._set_aside(phase, phase)
        try:
            yield
        finally:
            self._go_on(phase)

    def evaluating(self, name: str, trees: Callable[[], Iterable[TokenTree]], examples: int) -> Iterator[TokenTree]:
        """The micro-batches of one evaluation set, which has so many examples here; it ends when `evaluated` is told."""
        self._set_aside("evaluation", f"evaluating {name}")
        done = 0
        for tree in trees():
            self._label = f"{min(done, examples):,}/{examples:,}"
            yield tree
            done += len(tree.group_ids)
        self._label = ""

    @property
    def beside(self) -> float:
        """Seconds of what was no step, so far."""
        return self._clock.beside

    def _set_aside(self, phase: str, what: str) -> None:
        self._aside, self._label = what, ""
        self._clock.set_aside(phase)

    def _go_on(self, what: str) -> None:
        self._aside = self._label = ""
        self._clock.go_on(what)

    # What has been reached

    def advance(self, step: int) -> None:
        """`step` steps are done (every step; cheap, prints nothing)."""
        self._clock.advance(step)

    def log(self, step: int, logs: Mapping[str, float]) -> None:
        """One line, or the live figures.

        Shown by name, where present: loss, learning_rate, grad_norm, tokens_per_second, trained_share (0 to 1);
        memory and time left are measured here::

            step 20/300  loss 1.234  lr 1.9e-05  grad 0.83  1,234 tok/s  61% trained  2.1 GB  4:12 left

        Of rollouts what matters is shown instead, and the loss last::

            step 20/300  reward 0.61 ± 0.03  signal 45%  entropy 0.8  96 tokens  3% cut off  512 tok/s sampled  …  loss 0.01
        """
        self._clock.advance(step)
        self._remember("training", logs)
        self._curve.extend(logs[name] for name in ["reward" if self._samples else "loss"] if name in logs)
        memory = f"{memory_bytes() / 1e9:.1f} GB"
        self._figures = (*self._shown(self._last["training"]), memory)
        if self._live is None:
            self.message("  ".join(filter(None, [self._where(step), *self._shown(logs), memory, self._time_left()])))

    @property
    def _samples(self) -> bool:
        """Whether this is a run that samples. Not all its steps do, and those that do not say nothing of rollouts."""
        return "reward" in self._last.get("training", ())

    def _shown(self, logs: Mapping[str, float]) -> list[str]:
        shown = ROLLOUTS if self._samples else TOKENS
        return [_with_error(form.format(logs[name]), name, logs) for name, form in shown.items() if name in logs]

    def evaluated(self, step: int, metrics: Mapping[str, float], name: str = "eval") -> None:
        """One line for one evaluation set; the prefix `<name>_` of the metrics is left out::

        step 20/300  eval: loss 1.198  perplexity 3.31  token accuracy 0.7143
        """
        self._go_on(name)
        found = {key.removeprefix(f"{name}_"): value for key, value in metrics.items()}
        self._remember(name, found)
        keys = [key for key in found if not key.endswith(STDERR)] if self._live is None else _told(name, found)
        parts = [_with_error(f"{key.replace('_', ' ')} {found[key]:.4g}", key, found) for key in keys]
        self.message(f"{self._where(step)}  {name}: {'  '.join(parts)}")

    def _remember(self, name: str, metrics: Mapping[str, float]) -> None:
        self._times[name] += 1
        self._first[name] = {**metrics, **self._first.get(name, {})}
        self._last[name] = {**self._last.get(name, {}), **metrics}

    # Sentences

    def message(self, *texts: str) -> None:
        """Sentences, each on a line of its own above the live lines. Not wrapped and not interpreted as markup."""
        self._print(self.console, *texts)

    def warn(self, *texts: str) -> None:
        """Likewise, of what a person should look at: said to those who want it quiet, too."""
        self._print(self._loud, *texts, style="yellow")

    def conclude(self, folder: Path) -> None:
        """What the run came to, when its steps are done: a line for everyone, and for those who want more to know

        Done: 60 steps and 51,653 tokens in 0:42, in runs/sums.
          time      sampling 0:27  training 0:15
          training  reward 0.691 → 0.896 ± 0.052  loss 0.002 → 0.00087
          eval      reward 0.71 → 0.93 ± 0.02
        """
        clock, logs = self._clock, self._last.get("training", {})
        self.stop()
        clock.enter("")
        steps = counted(clock.step, "step") if clock.step == clock.total else f"{clock.step:,} of {counted(clock.total, 'step')}"
        now = f" ({clock.step - clock.done:,} of them now)" if clock.done else ""
        tokens = f" and {logs['num_tokens']:,.0f} tokens" if "num_tokens" in logs else ""
        self._print(self._loud, f"Done: {steps}{now}{tokens} in {words(clock.taken)}, in {folder}.")
        spent = sorted(clock.spent.items(), key=lambda one: -one[1])
        rows = {"time": [f"{phase} {words(seconds)}" for phase, seconds in spent if round(seconds)]}
        rows |= {name: [self._from_to(name, key) for key in _told(name, metrics)] for name, metrics in self._last.items()}
        label = max(map(len, rows))
        for name, parts in rows.items():
            for i, line in enumerate(wrapped(parts, max(20, self.console.width - label - 4))):
                self.message(f"  {'' if i else name:{label}}  {line}")

    def _from_to(self, name: str, key: str) -> str:
        first, last = self._first[name], self._last[name]
        before = f"{first[key]:.4g} → " if self._times[name] > 1 else ""
        return f"{key.replace('_', ' ')} {before}{_with_error(f'{last[key]:.4g}', key, last)}"

    def stop(self) -> None:
        """Take the live lines away; safe to call twice or before `start`."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, console: rich.console.Console, *texts: str, style: str | None = None) -> None:
        for text in texts if self._main else ():
            console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _frame(self) -> Frame:
        clock = self._clock
        what = " ".join(filter(None, (self._aside, self._label))) or ("first step" if clock.step == clock.done else "")
        long = words(clock.in_phase) if what and clock.in_phase >= LONG else ""
        beside = "  ".join(filter(None, (self._time_left(), what, long)))
        return Frame(step=clock.step, total=clock.total, words=beside, figures=self._figures, curve=tuple(self._curve))

    def _where(self, step: int) -> str:
        return f"step {step}/{self._clock.total}" if self._clock.total else f"step {step}"

    def _time_left(self) -> str:
        left = self._clock.left
        return "" if left is None else f"{words(left)} left"


def counted(count: int, what: str) -> str:
    """So many of `what`: 1 step, 1,200 steps."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def _told(name: str, metrics: Mapping[str, float]) -> list[str]:
    """The metrics that matter of an evaluation, or, when all is over, of training."""
    # the loss says nothing of a policy that learns from rewards, and all of it where the likelihood is the loss
    skipped = "loss" if "reward" in metrics else "nll" if metrics.get("nll") == metrics.get("loss") else ""
    names = CLOSING if name == "training" else [key for key in metrics if "/" not in key or key in CLOSING]
    return [key for key in names if key in metrics and key != skipped and not key.endswith((STDERR, "runtime"))]


def _with_error(text: str, name: str, metrics: Mapping[str, float]) -> str:
    return text + (f" ± {metrics[name + STDERR]:.2g}" if name + STDERR in metrics else "")
