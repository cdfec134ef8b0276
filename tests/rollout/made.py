"""Groups and rollouts made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from burnish.rollout.groups import Group, Path, Prompt, Rollout
from burnish.types import Segment


def said(*logps: float, first: int = 5, version: int = 0, **more: Any) -> Segment:
    """A sampled segment with a token for each of these log-probs."""
    ids = range(first, first + len(logps))
    return Segment(token_ids=list(ids), source="model", trained=True, behaviour_logp=np.array(logps), policy_version=version, **more)


def prompt(place: str = "rows:0", ids: Any = (1, 2, 3), **columns: Any) -> Prompt:
    return Prompt(place=place, draw=f"0:1:{place}", row={"prompt": "w1 w2 w3", **columns}, token_ids=np.array(ids, np.int32))


def rollout(sample: int, *segments: Segment, rewards: Any = (0.0,), reason: str = "stop", **more: Any) -> Rollout:
    paths = (Path(segments=segments or (said(-1.0, -2.0),)),)
    return Rollout(**{"sample": sample, "paths": paths, "completion": "w5 w6", "finish_reason": reason, "rewards": tuple(rewards), **more})


def group(*rewards: Any, place: str = "rows:0", **more: Any) -> Group:
    """A rollout of two tokens for each of these rewards, of one function."""
    return Group(prompt=prompt(place), rollouts=tuple(rollout(i, rewards=(one,)) for i, one in enumerate(rewards)), **more)
