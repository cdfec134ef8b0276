"""Learning-rate schedules: a factor of the peak rate as a pure function of the step, named as in transformers."""

from __future__ import annotations

import math
from collections.abc import Callable


def _linear(progress: float) -> float:
    return 1.0 - progress


def _cosine(progress: float, *, num_cycles: float = 0.5) -> float:
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 2.0 * num_cycles * progress)))


def _cosine_with_restarts(progress: float, *, num_cycles: int = 1) -> float:
    return 0.0 if progress >= 1.0 else 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0)))


def _cosine_with_min_lr(progress: float, *, min_lr_rate: float = 0.1, num_cycles: float = 0.5) -> float:
    return max(0.0, min_lr_rate + (1.0 - min_lr_rate) * 0.5 * (1.0 + math.cos(math.pi * 2.0 * num_cycles * progress)))


def _polynomial(progress: float, *, power: float = 1.0, end_rate: float = 1e-7) -> float:
    return end_rate + (1.0 - end_rate) * (1.0 - progress) ** power


def _constant(progress: float) -> float:
    return 1.0


def _warmup_stable_decay(progress: float, *, decay_share: float = 0.2, min_lr_ratio: float = 0.0) -> float:
    """Flat, then a half cosine over the last `decay_share` of the steps after warm-up."""
    into = (progress - (1.0 - decay_share)) / decay_share if decay_share > 0 else 0.0
    return 1.0 if into <= 0 else min_lr_ratio + (1.0 - min_lr_ratio) * 0.5 * (1.0 + math.cos(math.pi * into))


SHAPES: dict[str, Callable[..., float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "polynomial": _polynomial,
    "constant": _constant,
    "constant_with_warmup": _constant,
    "warmup_stable_decay": _warmup_stable_decay,
}
"""Each maps progress after warm-up, 0 to 1, to a factor of the peak rate."""


def schedule(name: str, *, warmup: int, total: int, **options: float) -> Callable[[int], float]:
    """The factor for step 0, 1, …, `total`: a linear rise over `warmup` steps, then the named shape.

    ``inverse_sqrt`` falls as ``sqrt(w / (w + steps after warm-up))`` with ``w = timescale or warmup or 10,000``.
    Raises ValueError for an unknown name or option.
    """
    if name != "inverse_sqrt" and name not in SHAPES:
        raise ValueError(f"lr_scheduler_type is {name!r}; choose one of {', '.join([*SHAPES, 'inverse_sqrt'])}.")
    warmup = 0 if name == "constant" else warmup
    timescale = float(options.pop("timescale", 0) or warmup or 10_000) if name == "inverse_sqrt" else 0.0
    try:
        SHAPES.get(name, _constant)(0.5, **options)
    except TypeError:
        raise ValueError(f"lr_scheduler_kwargs {sorted(options)} do not all belong to the {name} schedule; remove the others.") from None

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        if name == "inverse_sqrt":
            return math.sqrt(timescale / (timescale + step - warmup))
        return SHAPES[name](min(1.0, (step - warmup) / max(1, total - warmup)), **options)

    return factor
