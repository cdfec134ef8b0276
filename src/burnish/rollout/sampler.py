"""What every sampler is: token ids in, token ids and log-probs out.

A sampler never sees text but for stop strings, and never re-encodes what it sampled. Only the options of `Sampling` count: a
checkpoint's own `generation_config` is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from burnish.ops.sampling import Shape

FinishReason = Literal["stop", "length"]


class SamplingError(RuntimeError):
    """No completion can be had. One sentence: of what, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling(Shape):
    """From which distribution tokens are drawn, and when a completion ends.

    The order is: repetition penalty, temperature, top-k, top-p, min-p. At temperature 0 log-probs are those at temperature 1.
    """

    stop_token_ids: tuple[int, ...] = ()
    """Each ends a completion, as its last token."""
    stop: tuple[str, ...] = ()
    """Each ends a completion, with the token in which it is complete."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion that is asked for.

    The randomness of its i-th token belongs to (sampling.seed, prompt_id, sample, first + i), and to nothing else.
    """

    prompt_id: str
    """Names the prompt and the draw of it: ``"0:train:17"``. Requests of the same context share what is computed of it."""
    sample: int
    """Which completion of the prompt."""
    token_ids: np.ndarray
    """The context: 1-D integers, at least one."""
    max_tokens: int
    """Most tokens that may be sampled, at least 1."""
    first: int = 0
    """How many tokens of this rollout came before, in earlier turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What was sampled: at least one token."""

    request: Request
    token_ids: np.ndarray
    """int32 `[t]`, with the stop token where one ended it."""
    logp: np.ndarray
    """float32 `[t]`: of each token under the policy at the sampling temperature, whatever was truncated or penalised."""
    sampled_logp: np.ndarray | None
    """float32 `[t]`: under the distribution that it was really drawn from; None where that is the policy's own (`Sampling.changed`)."""
    finish_reason: FinishReason
    policy_version: int
    """Optimizer steps that the policy had taken."""


Then = Callable[[Completion], Request | None]
"""From a completion that has ended to the next turn of its rollout, or None."""


class Sampler(Protocol):
    """Draws completions from the policy as it is now."""

    exact: bool
    """Whether its log-probs are the trainer's own up to rounding: so of the built-in sampler, not of a server."""

    def sample(self, requests: Sequence[Request], sampling: Sampling, then: Then | None = None) -> Iterator[Completion]:
        """Completions, each as soon as it has ended, those of the requests that `then` asks for among them. Raises SamplingError."""
        ...

    def update(self, version: int) -> None:
        """The policy has taken `version` optimizer steps: what is sampled next is sampled from it as it is now. Raises SamplingError."""
        ...
