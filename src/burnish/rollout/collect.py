"""From prompts to scored groups: sampling, and scoring that begins as each group ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from burnish.distributed.launch import Launch, gather
from burnish.rewards.dry_run import columns_of
from burnish.rewards.pool import GroupRewards
from burnish.rewards.samples import Sample
from burnish.rollout.groups import Conversation, Group, Path, Prompt, Rollout, sampled_segment
from burnish.rollout.sampler import Completion, Request, Sampler, Sampling

Phase = Callable[[str, int, int], None]
"""Is told what goes on, and how much of how much of it is done; 0 of 0 where nobody counts."""


class Scoring(Protocol):
    """`rewards.scoring.Rewards`."""

    def submit(self, samples: Sequence[Sample], step: int) -> Future[GroupRewards]:
        """The completions of a prompt: their scoring begins."""
        ...

    def finish(self, samples: Sequence[Sample], functions: GroupRewards) -> GroupRewards:
        """With what only this process can score."""
        ...


class OneTurn:
    """A rollout that is one completion."""

    def __init__(self, tokenizer: Any, max_tokens: int, *, exact: bool) -> None:
        self._tokenizer, self._max_tokens, self._exact = tokenizer, max_tokens, exact
        self._prompts: dict[tuple[str, int], Prompt] = {}

    def begin(self, prompt: Prompt, sample: int) -> Request:
        self._prompts[prompt.draw, sample] = prompt
        return Request(prompt_id=prompt.draw, sample=sample, token_ids=prompt.token_ids, max_tokens=self._max_tokens)

    def then(self, completion: Completion) -> Request | None:
        return None

    def rollout(self, completion: Completion) -> Rollout:
        prompt = self._prompts.pop((completion.request.prompt_id, completion.request.sample))
        text = self._tokenizer.decode(completion.token_ids.tolist(), skip_special_tokens=True)
        return Rollout(
            sample=completion.request.sample,
            paths=(Path(segments=(sampled_segment(completion, exact=self._exact),)),),
            completion=text if isinstance(prompt.row["prompt"], str) else [{"role": "assistant", "content": text}],
            finish_reason=completion.finish_reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Groups, in the order of their prompts, the same on every rank."""

    groups: tuple[Group, ...]
    sampled: int
    """Tokens that were sampled, on all ranks."""
    sampling_seconds: float
    """Of this rank."""
    scoring_seconds: float
    """Of this rank, after the last completion had ended."""


class Collector:
    """Samples `n` completions of each prompt and has them scored. Prompts are dealt to the ranks in turn; a server has rank 0 alone."""

    def __init__(
        self, sampler: Sampler, conversation: Conversation, scoring: Scoring, here: Launch, *, phase: Phase = lambda name, done, total: None
    ) -> None:
        self._sampler, self._conversation, self._scoring, self._here, self._phase = sampler, conversation, scoring, here, phase

    def __call__(self, prompts: Sequence[Prompt], n: int, sampling: Sampling, step: int) -> Collected:
        """From the policy as it is after `step` steps. Call on every rank. Raises SamplingError, RewardError."""
        begun, here = time.monotonic(), self._here
        mine = range(here.rank, len(prompts), here.world_size) if self._sampler.exact else range(len(prompts) if here.main else 0)
        if self._sampler.exact or here.main:
            self._sampler.update(step)
        rollouts: dict[str, list[Rollout]] = {prompts[i].draw: [] for i in mine}
        by_draw = {prompts[i].draw: prompts[i] for i in mine}
        scores: dict[str, tuple[list[Sample], Future[GroupRewards]]] = {}
        last: dict[tuple[str, int], bool] = {}

        def then(completion: Completion) -> Request | None:
            following = self._conversation.then(completion)
            last[completion.request.prompt_id, completion.request.sample] = following is None
            return following

        requests = [self._conversation.begin(prompts[i], sample) for i in mine for sample in range(n)]
        self._phase("sampling", ended := 0, len(requests))
        for completion in self._sampler.sample(requests, sampling, then) if requests or self._sampler.exact else ():
            draw = completion.request.prompt_id
            if last.pop((draw, completion.request.sample)):
                self._phase("sampling", ended := ended + 1, len(requests))
                group = rollouts[draw]
                group.append(self._conversation.rollout(completion))
                if len(group) == n:
                    group.sort(key=lambda one: one.sample)
                    samples = [_sample(by_draw[draw], one) for one in group]
                    scores[draw] = samples, self._scoring.submit(samples, step)
        sampled = time.monotonic()
        made = list[tuple[int, Group]]()
        for i in mine:
            self._phase("scoring", len(made), len(mine))
            samples, future = scores[prompts[i].draw]
            made.append((i, _group(prompts[i], rollouts[prompts[i].draw], self._scoring.finish(samples, future.result()))))
        scored = time.monotonic()
        everyone = [one for part in gather(made, here, f"the rollouts of step {step + 1}") for one in part]
        groups = tuple(group for _, group in sorted(everyone, key=lambda one: one[0]))
        return Collected(
            groups=groups,
            sampled=sum(rollout.length for group in groups for rollout in group.rollouts),
            sampling_seconds=sampled - begun,
            scoring_seconds=scored - sampled,
        )


def _sample(prompt: Prompt, rollout: Rollout) -> Sample:
    return Sample(
        prompt=prompt.row.get("prompt") or [],
        completion=rollout.completion,
        completion_ids=rollout.token_ids,
        finish_reason=rollout.finish_reason,
        columns=columns_of(prompt.row),
    )


def _group(prompt: Prompt, rollouts: Sequence[Rollout], scored: GroupRewards) -> Group:
    """With their rewards, those that the rollouts brought with them first."""
    extras = [{name: column[i] for name, column in scored.extras.items()} for i in range(len(rollouts))]
    whole = [replace(one, rewards=(*one.rewards, *scored.rewards[i]), extras={**one.extras, **extras[i]}) for i, one in enumerate(rollouts)]
    return Group(prompt=prompt, rollouts=tuple(whole), metrics=scored.metrics, seconds=sum(scored.seconds))
