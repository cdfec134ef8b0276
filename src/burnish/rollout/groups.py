"""Rollouts before they are examples: a prompt that was drawn, and the completions of it with what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from burnish.ops.reduce import Totals
from burnish.rewards.samples import Failure, Reward
from burnish.rollout.sampler import Completion, Request
from burnish.types import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A row that was drawn."""

    place: str
    """Names the row: ``"train.jsonl:17"``. The group id of its examples."""
    draw: str
    """Names the draw, for the sampler's randomness: ``"0:4:train.jsonl:17"``, the 4th of epoch 0."""
    row: Mapping[str, Any]
    token_ids: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What a policy was given and what it said, one after the other, after the prompt."""

    segments: tuple[Segment, ...]
    own_prompt: bool = False
    """Whether `segments` stand alone: the rollout's history was rewritten, and the group's prompt is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One completion of a prompt, over all its turns."""

    sample: int
    paths: tuple[Path, ...]
    """One; more where history was rewritten on the way."""
    completion: str | list[dict[str, Any]]
    """As rewards see it."""
    finish_reason: str
    rewards: tuple[Reward, ...] = ()
    """One of each reward function."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Columns that rewards and environments log of it."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """Of tools and turns: calls, failures, rewrites."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(segment for path in self.paths for segment in path.segments)

    @property
    def length(self) -> int:
        """Tokens that the policy sampled."""
        return sum(len(segment) for segment in self.segments if segment.trained)

    @property
    def token_ids(self) -> np.ndarray:
        """Every token after the prompt, or of each path where there are several."""
        return np.concatenate([np.zeros(0, np.int32), *(segment.token_ids for segment in self.segments)])

    @property
    def failed(self) -> tuple[Failure, ...]:
        return tuple(reward for reward in self.rewards if isinstance(reward, Failure))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt and its rollouts, in the order of their numbers."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What rewards measured beside, by name."""
    seconds: float = 0.0
    """That scoring took, in the rewards' processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What rollouts are worth, group by group and in the order of the rollouts."""

    rewards: tuple[tuple[float | None, ...], ...]
    """None where there is none, because one failed or none had anything to say."""
    advantages: tuple[tuple[float, ...], ...]
    signal: tuple[bool, ...]
    """Whether there is anything to learn from a group."""
    metrics: Totals = field(default_factory=dict)
    ref_logps: tuple[Sequence[np.ndarray], ...] = ()
    """Of each rollout the log-probs of its sampled tokens under the reference, where that was asked."""


class Conversation(Protocol):
    """What happens between a prompt and the end of a rollout: nothing but one completion, or turns with tools and environments."""

    def begin(self, prompt: Prompt, sample: int) -> Request:
        """The first turn."""
        ...

    def then(self, completion: Completion) -> Request | None:
        """The next turn, or None when the rollout is over."""
        ...

    def rollout(self, completion: Completion) -> Rollout:
        """After `then` has said None: the whole of it, without rewards."""
        ...


def sampled_segment(completion: Completion, *, exact: bool) -> Segment:
    """What the policy said in a turn. The log-probs that tokens were drawn by are kept where they are not the policy's as the trainer
    has it: of a truncated or penalised distribution, and of a server."""
    sampled = completion.logp if completion.sampled_logp is None and not exact else completion.sampled_logp
    return Segment(
        token_ids=completion.token_ids,
        source="model",
        trained=True,
        behaviour_logp=completion.logp,
        sampled_logp=sampled,
        policy_version=completion.policy_version,
    )
