"""What a training run consists of, once assembled: the record that `trainer.py` fills and `loop.py` runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from burnish.checkpoint.state import TrainState
from burnish.config.train import TrainConfig
from burnish.data.batches import Batches, StepBatch
from burnish.distributed.launch import Launch, gather
from burnish.distributed.signals import Signals
from burnish.models.lora import untrained_parameters
from burnish.ops.reduce import Totals
from burnish.types import LossOut, TokenOutputs, TokenTree

WISHES = {"on_log": "should_log", "on_evaluate": "should_evaluate", "on_save": "should_save"}
"""Event → the wish that it fulfils."""


class TrainingError(RuntimeError):
    """The run cannot go on. One sentence: the step, the rows, the last good checkpoint."""


class Method:
    """What a method's file gives to the loop."""

    __slots__ = ()

    def look_ahead(self, trees: Iterable[TokenTree]) -> Iterable[tuple[TokenTree, Any]]:
        """All micro-batches of this rank, of one step or of one evaluation, before any of them is computed with a gradient.

        Gives each with what its loss has to know of more than itself: log-probs of a reference, say, or a mean over the whole step.
        What is waited for here is the same on all ranks.
        """
        return ((tree, None) for tree in trees)

    def counts(self, tree: TokenTree) -> Mapping[str, float]:
        """Each loss term's count in `tree`, known before the forward. The loop adds them up over the whole step."""
        raise NotImplementedError

    def loss_and_metrics(self, tree: TokenTree, outputs: Any, known: Any) -> LossOut:
        """The only place where a batch meets `ops/`; `known` is from `look_ahead`. A metric named "nll" gives the perplexity."""
        raise NotImplementedError

    def after_step(self, step: int, totals: Totals) -> None:
        """The weights have changed; `totals` are this rank's metrics of the step, total and count by name."""

    def state(self) -> dict[str, Any]:
        """What changes while training and is not the policy's, the same on every rank; JSON. Part of a checkpoint."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Likewise, in whole tensors: a reference that follows the policy. Called on every rank."""
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Takes back what `state` and `tensors` gave."""


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
    max_epochs: float = math.inf
    """Where epochs decide how long to train: a callback that ends epochs early does not add others."""
    report: Report
    save: Callable[[], None]
    last_good: Callable[[], str]
    """Names the newest checkpoint in words, for an error."""
    eval_sets: Mapping[str, Callable[[], Iterable[TokenTree]]] = field(default_factory=dict)
    """Metric prefix ("eval", or "eval_<name>" of several) → this rank's micro-batches."""
    extra_metrics: Callable[[str, Iterable[tuple[TokenTree, TokenOutputs]]], Mapping[str, float]] | None = None
    """Further metrics of an evaluation set, by its prefix and from all that was computed of it: the user's `compute_metrics`, say."""
    signals: Signals = field(default_factory=Signals)
    """Notes SIGTERM and SIGINT while it trains."""
    mark: tuple[float, int] = (0.0, 0)
    """Clock and tokens seen at the last log line, for tokens per second. Not part of the state."""

    learning_rate: float = 0.0
    """Of the step just taken; the schedule is one ahead. Not part of the state."""

    @property
    def over(self) -> bool:
        """By its steps, a callback's wish or a signal; a source may end before."""
        done = self.state.trainer.global_step >= self.max_steps
        return done or self.state.control.should_training_stop or self.signals.stop is not None

    def fire(self, event: str, **what: Any) -> None:
        """Tells every callback, with the arguments that transformers gives: ``fire("on_log", logs=...)``."""
        state = self.state
        if event in WISHES:
            vars(state.control)[WISHES[event]] = False
        what |= {"model": state.model, "processing_class": state.processing_class}
        what |= {"optimizer": state.optimizer, "lr_scheduler": state.scheduler}
        for callback in state.callbacks:
            answer = methodcaller(event, self.args, state.trainer, state.control, **what)(callback)
            if answer is not None and answer is not state.control:
                vars(state.control).update({name: vars(answer)[name] for name in vars(state.control)})

    def decide(self, now: Literal["steps", "epoch"]) -> None:
        """Asks for what is due: after a step ("steps"), or when an epoch, or training, is over ("epoch").

        The last step logs, evaluates and saves whatever the intervals are; what is left to log when a callback ends the run is logged.
        """
        args, step, control = self.args, self.state.trainer.global_step, self.state.control
        last = step >= self.max_steps

        def due(strategy: str, every: float | None) -> bool:
            return strategy == now and (now == "epoch" or last or step % int(every or args.logging_steps) == 0)

        stops = now == "epoch" and control.should_training_stop
        first = now == "steps" and step == 1 and args.logging_first_step
        control.should_log |= due("steps", args.logging_steps) or first or (stops and bool(self.state.meter))
        control.should_evaluate |= due(args.eval_strategy, args.eval_steps)
        control.should_save |= due(args.save_strategy, args.save_steps)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in here is not training's: it does not enter tokens per second."""
        started = time.monotonic()
        yield
        self.mark = (self.mark[0] + time.monotonic() - started, self.mark[1])

    def improved(self, metrics: Mapping[str, float]) -> bool:
        """Notes a new best value of `metric_for_best_model`; True where the best model is to be kept. NaN is never the best.

        Raises TrainingError for a metric that evaluation does not give.
        """
        args, state, name = self.args, self.state.trainer, self.args.metric_for_best_model
        if name is None:
            return False
        value = metrics.get(name, metrics.get(f"eval_{name}"))
        if value is None:
            raise TrainingError(f"metric_for_best_model is {name!r}, and evaluation gives {', '.join(sorted(metrics))}; choose one.")
        sign = 1 if args.greater_is_better else -1
        best = -math.inf if state.best_metric is None else sign * state.best_metric
        if not sign * value > best:
            return False
        state.best_metric, state.best_global_step = value, state.global_step
        return args.load_best_model_at_end


def check(run: Run, batch: StepBatch, losses: Sequence[Tensor], norm: Tensor, *, gradients: bool) -> None:
    """A number that is not finite stops the run before it reaches the weights; so does a trainable tensor without a gradient.

    Raises TrainingError.
    """
    *finite, norm_is_finite = torch.stack([*losses, norm.to(losses[0].dtype)]).isfinite().tolist()
    if not (all(finite) and norm_is_finite):
        bad = [group for tree, ok in zip(batch.trees, finite, strict=True) if not ok for group in tree.group_ids]
        if not norm_is_finite:  # every rank has this norm and is here
            bad = [group for rank in gather(bad, run.here, "the rows of a gradient that is not finite") for group in rank]
        what = f"{'loss' if bad else 'gradient norm'} of step {run.state.trainer.global_step + 1}"
        rows = ", ".join(dict.fromkeys(bad or [group for tree in batch.trees for group in tree.group_ids]))
        raise TrainingError(f"The {what} is not finite with rows {rows}; look at them, or lower the learning rate; {run.last_good()}.")
    if gradients and (missing := untrained_parameters(run.state.model)):
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise TrainingError(f"After the first backward these trainable tensors have no finite gradient: {shown}; freeze or mend them.")
