"""The random generators of this process, as something `torch.load(weights_only=True)` reads."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from burnish.checkpoint.files import CheckpointError


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process: Python, NumPy, torch on the CPU and on each CUDA device."""
    kind, words, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(words).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Inverse of `random_state`.

    Raises:
        CheckpointError: the state is of another number of CUDA devices than this process sees.
    """
    if (saved := len(state["cuda"])) not in (0, here := torch.cuda.device_count()):
        raise CheckpointError(
            f"The checkpoint was written by a process that saw {saved} GPUs and this one sees {here}; "
            "show it as many (CUDA_VISIBLE_DEVICES), since their random states are part of the run."
        )
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
