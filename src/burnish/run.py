"""What a training run consists of, once assembled: the record that `trainer.py` fills and `loop.py` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from burnish.checkpoint.state import TrainState
from burnish.config.train import TrainConfig
from burnish.data.batches import Batches
from burnish.distributed.launch import Launch
from burnish.types import LossOut, TokenOutputs, TokenTree


class TrainingError(RuntimeError):
    """The run cannot go on. One sentence: the step, the rows, the last good checkpoint."""


class Method(Protocol):
    """What a method's file gives to the loop."""

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        """Each loss term's count in `tree`, known before the forward. The loop adds them up over the whole step."""
        ...

    def loss_and_metrics(self, tree: TokenTree, outputs: TokenOutputs) -> LossOut:
        """The only place where a batch meets `ops/`. A metric named "nll" gives the perplexity."""
        ...


class Report(Protocol):
    def advance(self, step: int) -> None: ...
    def log(self, step: int, logs: Mapping[str, float]) -> None: ...
    def evaluated(self, step: int, metrics: Mapping[str, float], name: str) -> None: ...


@dataclass(kw_only=True)
class Run:
    policy: nn.Module
    """`models.policy.Policy`, wrapped for data parallelism where there is more than one process."""
    method: Method
    args: TrainConfig
    here: Launch
    state: TrainState
    batches: Batches
    max_steps: int
    report: Report
    save: Callable[[], None]
    last_good: Callable[[], str]
    """Names the newest checkpoint in words, for an error."""
    eval_sets: Mapping[str, Callable[[], Iterable[TokenTree]]] = field(default_factory=dict)
    """Metric prefix ("eval", or "eval_<name>" of several) → this rank's micro-batches."""
    extra_metrics: Callable[[Iterable[tuple[TokenTree, TokenOutputs]]], Mapping[str, float]] | None = None
    """The user's `compute_metrics`, over all that an evaluation computed."""
    fire: Callable[..., None] = lambda event, **_: None
    """Tells the callbacks: ``fire("on_log", logs=...)``."""
    mark: tuple[float, int] = (0.0, 0)
    """Clock and tokens seen at the last log line, for tokens per second. Not part of the state."""

    def decide(self, *, epoch_ends: bool) -> None:
        """Sets what is due after this step. The last step logs, evaluates and saves whatever the intervals are."""
        args, step, control = self.args, self.state.trainer.global_step, self.state.control
        last = step >= self.max_steps

        def due(strategy: str, every: float | None) -> bool:
            return strategy != "no" and (last or (epoch_ends if strategy == "epoch" else step % int(every or args.logging_steps) == 0))

        control.should_log = due("steps", args.logging_steps) or (step == 1 and args.logging_first_step)
        control.should_evaluate = bool(self.eval_sets) and due(args.eval_strategy, args.eval_steps)
        control.should_save = due(args.save_strategy, args.save_steps)

    def improved(self, metrics: Mapping[str, float]) -> bool:
        """Notes a new best value of `metric_for_best_model`; True where the best model is to be kept.

        Raises TrainingError for a metric that evaluation does not give.
        """
        args, state, name = self.args, self.state.trainer, self.args.metric_for_best_model
        if name is None:
            return False
        value = metrics.get(name, metrics.get(f"eval_{name}"))
        if value is None:
            raise TrainingError(f"metric_for_best_model is {name!r}, and evaluation gives {', '.join(sorted(metrics))}; choose one.")
        sign = 1 if args.greater_is_better else -1
        if state.best_metric is not None and sign * (value - state.best_metric) <= 0:
            return False
        state.best_metric, state.best_global_step = value, state.global_step
        return args.load_best_model_at_end
