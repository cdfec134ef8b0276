"""One optimizer step through the loop, and everything that can be said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from burnish.checkpoint.state import TrainState
from burnish.data.batches import OfflineBatches, StepBatch, evaluation_trees
from burnish.data.tree import build_tree
from burnish.distributed.launch import Launch, all_sum
from burnish.distributed.shards import whole
from burnish.distributed.wrap import Sharding, copied, make_mesh, shard
from burnish.loop import evaluate, optimizer_step
from burnish.models.attention import NAME, register
from burnish.models.policy import Paths, Policy
from burnish.models.reference import Reference
from burnish.run import Run
from burnish.types import Example
from tests.laws.methods import Case, Parts
from tests.models.families import tiny_model


class Listed(list):
    """Examples as the batches read them."""

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(e) for e in self])


class Watching(torch.optim.SGD):
    """Plain gradient descent that keeps the gradient it was given."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        super().__init__([p for p in model.parameters() if p.requires_grad], lr=lr)
        self.model = model

    def step(self, closure: Any = None) -> None:
        super().step()
        trained = ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)
        self.gradient = {n: torch.zeros_like(whole(p)) if p.grad is None else whole(p.grad).clone() for n, p in trained}


class Quiet:
    """A report that nobody reads."""

    def advance(self, step: int) -> None: ...
    def log(self, step: int, logs: Mapping[str, float]) -> None: ...
    def evaluated(self, step: int, metrics: Mapping[str, float], name: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    gradient: dict[str, torch.Tensor]
    metrics: dict[str, float]
    """Total and count of each metric of the step, over all ranks; and, where one was made, of an evaluation."""
    weights: dict[str, torch.Tensor]
    """After the step."""
    micro_batches: int


def make_run(
    case: Case,
    *,
    here: Launch | None = None,
    model: Any = None,
    paths: Paths | None = None,
    lr: float = 0.0,
    sharding: Sharding | None = None,
    reference: Callable[[Case], Reference] | None = None,
) -> Run:
    """The case's method on a tiny float64 model. Gradients are not clipped."""
    register()
    model = case.model() if model is None else model
    policy = case.policy(model, paths=paths)
    if policy.paths.attention == "tree":
        policy.causal_model.set_attn_implementation(NAME)
    args, here = case.config(max_grad_norm=0.0, compute_dtype="float32"), here or Launch()
    if sharding is not None and here.world_size > 1:
        shard(policy, here, sharding, make_mesh(here, sharding))
    return Run(
        policy=policy if sharding is not None else copied(policy, here),
        method=case.method(args, Parts(policy=policy, reference=(reference or other_model)(case), here=here)),
        args=args,
        here=here,
        state=TrainState(model=model, optimizer=Watching(model, lr)),
        batches=None,  # the tests hand their steps over themselves
        max_steps=100,
        report=Quiet(),
        save=lambda: None,
        last_good=lambda: "",
    )


def other_model(case: Case) -> Reference:
    """A reference that differs from the policy."""
    model = tiny_model(case.family, seed=5)
    model.set_attn_implementation(NAME)
    return Reference(Policy(model), identity="another model")


def same_model(case: Case) -> Reference:
    """The policy as it is at the start."""
    model = tiny_model(case.family)
    model.set_attn_implementation(NAME)
    return Reference(Policy(model), identity="the policy")


def whole_step(examples: Sequence[Example], *, max_tokens: int, here: Launch | None = None) -> StepBatch:
    """All `examples` as one step, cut by the library's own plan."""
    here, count = here or Launch(), len(examples)
    shape = {"batch_size": count, "max_tokens": max_tokens, "rank": here.rank, "ranks": here.world_size}
    batches = OfflineBatches(Listed(examples), lambda epoch: np.arange(count), **shape)
    return next(batches.steps((0, 0)))


def cut_step(examples: Sequence[Example], parts: Sequence[Sequence[int]]) -> StepBatch:
    """The same step, cut as `parts` says."""
    return replace(whole_step(examples, max_tokens=10**6), trees=tuple(build_tree([examples[i] for i in part]) for part in parts))


def take(run: Run, batch: StepBatch, *, evaluated: Sequence[Example] = (), max_tokens: int = 10**6) -> Outcome:
    """One step, and an evaluation where there is something to evaluate."""
    optimizer_step(run, batch, check_gradients=True)
    metrics = {}
    for name, (total, count) in all_sum(run.state.meter, run.here).items():
        metrics |= {f"{name} total": total, f"{name} count": count}
    run.state.meter = {}
    if evaluated:
        shape = {"max_tokens": max_tokens, "rank": run.here.rank, "ranks": run.here.world_size}
        run.eval_sets = {"eval": lambda: evaluation_trees(Listed(evaluated), **shape)}
        metrics |= {name: value for name, value in evaluate(run).items() if "runtime" not in name}
    optimizer = run.state.optimizer
    weights = {n: whole(p.detach()).clone() for n, p in run.state.model.named_parameters() if p.requires_grad}
    return Outcome(gradient=optimizer.gradient, metrics=metrics, weights=weights, micro_batches=len(batch.trees))
