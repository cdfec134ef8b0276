"""Arithmetic fine enough to tell a mistake from rounding, and how gradients are compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Inside, float64 stays float64.

    Models take norms, softmax and logits in float32 whatever their weights are, which rounds gradients at 1e-7 and would
    hide smaller leaks. Here those casts do nothing.
    """
    to, to_float32, softmax = Tensor.to, Tensor.float, F.softmax

    def cast(x: Tensor, *args, **kwargs) -> Tensor:
        return x if x.dtype is torch.float64 and torch.float32 in (*args, kwargs.get("dtype")) else to(x, *args, **kwargs)

    def normalise(x: Tensor, *args, dtype=None, **kwargs) -> Tensor:
        return softmax(x, *args, dtype=None if x.dtype is torch.float64 else dtype, **kwargs)

    with (
        patch.object(Tensor, "to", cast),
        patch.object(Tensor, "float", lambda x: x if x.dtype is torch.float64 else to_float32(x)),
        patch.object(F, "softmax", normalise),
    ):
        yield


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Of every trainable parameter, zeros where there is none; then cleared."""
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    return found


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference of one tensor, relative to the norm of all."""
    assert found.keys() == wanted.keys()
    size = torch.stack([w.norm() for w in wanted.values()]).norm()
    assert size > 0, "the gradient to compare with is zero"
    return float(max((found[n] - w).norm() for n, w in wanted.items()) / size)
