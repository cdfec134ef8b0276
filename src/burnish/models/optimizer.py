"""Optimizers by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from burnish.config.train import TrainConfig
from burnish.models.load import ModelError
from burnish.ops.schedules import schedule

Named = list[tuple[str, nn.Parameter]]
Betas = tuple[float, float]


def make_optimizer(
    name: str, model: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float], epsilon: float, **options: Any
) -> torch.optim.Optimizer:
    """`name` is one of `OPTIMIZERS`; `options` (`optim_args`) go to it. Vectors (biases, norms) are never decayed.

    Raises ModelError for an unknown name, an option that the optimizer does not have, or a model with nothing to train.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ModelError("No parameter of the model requires a gradient, so there is nothing to train; unfreeze some or add an adapter.")
    if name not in OPTIMIZERS:
        raise ModelError(f"optim is {name!r}; choose one of {', '.join(OPTIMIZERS)}, or pass your own as optimizers=(optimizer, schedule).")
    try:
        return OPTIMIZERS[name](named, learning_rate, weight_decay, betas, epsilon, options)
    except TypeError as error:
        raise ModelError(f"optim_args {sorted(options)} do not all belong to {name}: {error}.") from None


def from_config(args: TrainConfig, model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """The optimizer and the schedule over `steps` that the options describe."""
    optimizer = make_optimizer(
        args.optim,
        model,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        betas=(args.adam_beta1, args.adam_beta2),
        epsilon=args.adam_epsilon,
        **(args.optim_args or {}),
    )
    return optimizer, make_schedule(args, optimizer, steps)


def check_own(optimizer: torch.optim.Optimizer | None, scheduler: Any, model: nn.Module, *, fsdp: str = "no") -> None:
    """Refuses what a user passed as `optimizers` where it would train nothing. Raises ModelError."""
    if optimizer is not None and fsdp != "no":
        raise ModelError("fsdp replaces the tensors that the optimizer in `optimizers` holds; name one with optim, or leave fsdp out.")
    if scheduler is not None and (optimizer is None or scheduler.optimizer is not optimizer):
        raise ModelError("The schedule in `optimizers` drives another optimizer than the one that trains; give (optimizer, its schedule).")
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ModelError("ReduceLROnPlateau needs a metric at every step, which the loop has not; give a schedule of the step number.")
    if optimizer is not None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        trained = {id(p) for p in model.parameters() if p.requires_grad}
        if not held & trained or held - {id(p) for p in model.parameters()}:
            raise ModelError("The optimizer in `optimizers` does not hold this model's trainable tensors; make it of the model you pass.")


def make_schedule(args: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """A `warmup_steps` below 1 is a share of `steps`."""
    warmup = math.ceil(args.warmup_steps * steps) if args.warmup_steps < 1 else int(args.warmup_steps)
    return LambdaLR(optimizer, schedule(args.lr_scheduler_type, warmup=warmup, total=steps, **(args.lr_scheduler_kwargs or {})))


def _groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    named = list(named)
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _adamw(named: Named, lr: float, decay: float, betas: Betas, eps: float, options: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(named, decay), lr=lr, betas=betas, eps=eps, **{"fused": True, **options})


def _adafactor(named: Named, lr: float, decay: float, betas: Betas, eps: float, options: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(_groups(named, decay), lr=lr, **options)


def _sgd(named: Named, lr: float, decay: float, betas: Betas, eps: float, options: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(_groups(named, decay), lr=lr, **options)


def _muon(named: Named, lr: float, decay: float, betas: Betas, eps: float, options: dict[str, Any]) -> torch.optim.Optimizer:
    """Muon for the matrices of the layers; AdamW for embeddings, head, vectors and tensors of three axes, as its author advises."""
    matrices = {id(p) for n, p in named if p.ndim == 2 and not any(word in n for word in ("embed", "lm_head", "wte", "wpe"))}
    parts: list[torch.optim.Optimizer] = []
    if hidden := [p for _, p in named if id(p) in matrices]:
        # match_rms_adamw: one learning rate then suits both parts (Liu et al. 2025, arXiv:2502.16982, eq. 4)
        parts.append(torch.optim.Muon(hidden, lr=lr, weight_decay=decay, **{"adjust_lr_fn": "match_rms_adamw", **options}))
    if rest := [(n, p) for n, p in named if id(p) not in matrices]:
        parts.append(torch.optim.AdamW(_groups(rest, decay), lr=lr, betas=betas, eps=eps, fused=True))
    return parts[0] if len(parts) == 1 else Together(parts)


class Together(torch.optim.Optimizer):
    """Several optimizers over disjoint parameters as one: one list of groups for schedules, one state for checkpoints."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state, part.param_groups = self.state, [next(groups) for _ in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step(closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": _adamw, "adafactor": _adafactor, "sgd": _sgd, "muon": _muon}
