"""The loop: one page. A method gives sums and counts; this file divides, steps, and says when to log, evaluate and save.

It cannot tell a dataset from rollouts, nor one process from many.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from burnish.data.batches import StepBatch
from burnish.distributed.launch import all_sum, waiting
from burnish.distributed.wrap import clip_gradients, gradient_sync
from burnish.ops.reduce import add, means, read
from burnish.report.evaluation import TERM, named_metrics
from burnish.run import Run, TrainingError, check
from burnish.types import Sum, TokenOutputs, TokenTree


def train(run: Run) -> None:
    """Steps until `max_steps`, the end of the source, or a callback's wish."""
    state, control = run.state.trainer, run.state.control
    run.policy.train()
    run.fire("on_train_begin")
    if run.args.eval_on_start and not state.global_step and run.eval_sets:
        evaluate(run)
    run.mark, first = (time.monotonic(), state.num_input_tokens_seen), True
    steps = run.batches.steps(run.state.cursor)
    while not run.over and (batch := next(steps, None)) is not None:
        if run.state.cursor[1] == 0:
            control.new_epoch()
            run.fire("on_epoch_begin")
        control.new_step()
        run.fire("on_step_begin")
        optimizer_step(run, batch, check_gradients=first)
        first, run.state.cursor = False, batch.cursor
        state.global_step, state.epoch = state.global_step + 1, batch.epoch
        state.num_input_tokens_seen += batch.tokens
        run.report.advance(state.global_step)
        run.decide("steps")
        run.fire("on_step_end")
        attend(run)
        if control.should_epoch_stop and batch.cursor[1] != 0:
            run.state.cursor = (batch.cursor[0] + 1, 0)
            steps = run.batches.steps(run.state.cursor)
            control.should_training_stop |= run.state.cursor[0] >= run.max_epochs
        if run.state.cursor[1] == 0 or control.should_training_stop or state.global_step >= run.max_steps:
            run.decide("epoch")
            run.fire("on_epoch_end")
            attend(run)
        save(run)
    if not run.signals.agree(all_sum(run.signals.counts, run.here, "the end of the training")):  # one may have come in the last step
        run.fire("on_train_end")


def optimizer_step(run: Run, batch: StepBatch, *, check_gradients: bool = False) -> None:
    """One step over all its micro-batches. Counts of all ranks are added up before the first backward."""
    number, mine = run.state.trainer.global_step + 1, run.signals.counts
    for tree, _ in (trees := list(run.method.look_ahead(tree.to(run.here.device) for tree in batch.trees))):
        add(mine, {name: (0.0, count) for name, count in run.method.counts(tree).items()})
    counts, sums, losses = all_sum(mine, run.here, f"the counts of step {number}"), list[Mapping[str, Sum]](), list[Tensor]()
    with waiting(f"the gradients of step {number}", run.here):
        for i, (tree, known) in enumerate(trees):
            with gradient_sync(run.policy, on=i == len(trees) - 1):
                out = run.method.loss_and_metrics(tree, run.policy(tree), known)
                loss = torch.stack([term.total / max(counts[name][1], 1.0) for name, term in out.terms.items()]).sum()  # the one division
                (loss * run.here.world_size).backward()  # data parallelism averages over ranks
                if i < len(trees) - 1:
                    run.fire("on_substep_end")
            losses.append(loss.detach())
            sums.append(out.metrics)
        norm = clip_gradients(run.state.model.parameters(), run.args.max_grad_norm or math.inf).to(losses[0].device)
    check(run, batch, losses, norm, gradients=check_gradients)
    run.fire("on_pre_optimizer_step")
    run.state.optimizer.step()
    run.fire("on_optimizer_step")
    run.learning_rate = float(run.state.optimizer.param_groups[0]["lr"])
    if run.state.scheduler is not None:
        run.state.scheduler.step()
    run.state.optimizer.zero_grad(set_to_none=True)
    here = float(run.here.main)  # what all ranks know alike counts once
    whole = {"loss": Sum(total=torch.stack(losses).sum(), count=here), "grad_norm": Sum(total=norm * here, count=here)}
    run.method.after_step(number, totals := read([*sums, whole]))
    add(run.state.meter, {**totals, **batch.metrics, "trained_share": (batch.trained * here, batch.tokens * here)})
    run.signals.agree(counts if run.here.world_size > 1 else run.signals.counts)


def attend(run: Run) -> None:
    """Logs and evaluates, as due. A new best model is to be saved."""
    control = run.state.control
    if control.should_log:
        log(run)
    if control.should_evaluate:
        with run.paused():
            control.should_save |= run.improved(evaluate(run))


def save(run: Run) -> None:
    """Last of all in a step, so that a checkpoint holds every line of it. A run that a callback or a signal ends is saved, too."""
    control = run.state.control
    if control.should_save or ((control.should_training_stop or run.signals.stop) and run.args.save_strategy != "no"):
        with run.paused():
            run.save()
        run.fire("on_save")


def log(run: Run) -> None:
    """Reduces the metrics gathered since the last line, and writes one."""
    state = run.state.trainer
    sums, run.state.meter = all_sum(run.state.meter, run.here, "the metrics of a log line"), {}
    now, seen = time.monotonic(), state.num_input_tokens_seen
    logs = {**means(sums), "learning_rate": run.learning_rate, "epoch": state.epoch}
    logs |= {"num_tokens": seen, "tokens_per_second": (seen - run.mark[1]) / max(now - run.mark[0], 1e-9)}
    run.mark = (now, seen)
    state.log_history.append({**logs, "step": state.global_step})
    run.report.log(state.global_step, logs)
    run.fire("on_log", logs=logs)


@torch.no_grad()
def evaluate(run: Run) -> dict[str, float]:
    """Every evaluation set once; metrics under their set's prefix. Raises TrainingError where there is none."""
    if not run.eval_sets:
        raise TrainingError("There is nothing to evaluate on; give eval_dataset.")
    run.policy.eval()
    metrics: dict[str, float] = {}
    for prefix, trees in run.eval_sets.items():
        started, sums, seen = time.monotonic(), [], list[tuple[TokenTree, TokenOutputs]]()
        for tree, known in run.method.look_ahead(tree.to(run.here.device) for tree in trees()):
            outputs = run.policy(tree)
            out = run.method.loss_and_metrics(tree, outputs, known)
            sums.append({**out.metrics, **{f"{TERM}{name}": term for name, term in out.terms.items()}})
            if run.extra_metrics is not None:
                seen.append((tree, outputs))
            run.fire("on_prediction_step")
        named = named_metrics(means(all_sum(read(sums), run.here, f"the sums of evaluation {prefix!r}")))
        if run.extra_metrics is not None:
            named |= {name.removeprefix(f"{prefix}_"): value for name, value in run.extra_metrics(prefix, seen).items()}
        named["runtime"] = time.monotonic() - started
        run.report.evaluated(run.state.trainer.global_step, named, prefix)
        metrics |= {f"{prefix}_{name}": value for name, value in named.items()}
    run.policy.train()
    run.state.trainer.log_history.append({**metrics, "epoch": run.state.trainer.epoch, "step": run.state.trainer.global_step})
    run.fire("on_log", logs=metrics)
    run.fire("on_evaluate", metrics=metrics)
    return metrics
