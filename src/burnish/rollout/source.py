"""Rollouts as a source of steps: the loop cannot tell them from a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from burnish.data.batches import NOTHING, Cursor, StepBatch, make_step
from burnish.data.tree import split_example
from burnish.distributed.launch import Launch
from burnish.ops.reduce import Totals, add, means
from burnish.report.advice import Advice
from burnish.report.samples import SampleFiles
from burnish.rewards.total import FailureCount
from burnish.rollout.collect import Collected, Collector, Phase
from burnish.rollout.drawing import Prompts
from burnish.rollout.examples import examples_of, lines_of, packed, unpacked, with_behaviour
from burnish.rollout.groups import Group, Judged
from burnish.rollout.measure import measured
from burnish.rollout.sampler import Sampling
from burnish.types import Example

Judge = Callable[[Sequence[Group]], Judged]
"""A method's way from rewards to advantages. Call on every rank."""
Score = Callable[[Sequence[Example]], list[np.ndarray]]
"""Log-probs of every target of each example under the policy as it is now. Call on every rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What rollouts are made with."""

    prompts: Prompts
    sampling: Sampling
    collect: Collector
    judge: Judge
    rewards: tuple[str, ...]
    """Names of the reward functions."""
    failures: FailureCount
    files: SampleFiles
    text: Callable[[np.ndarray], str]
    """From the token ids of a prompt."""
    steps_done: Callable[[], int]
    say: Callable[[str], None]
    phase: Phase = lambda name, done, total: None  # noqa: E731
    beside: Callable[[], float] = lambda: 0.0  # noqa: E731
    """Seconds that evaluations and checkpoints have taken so far, which are no part of training."""
    show: Callable[[Sequence[Mapping[str, Any]]], None] | None = None
    """Prints samples, where that is asked for."""
    score: Score | None = None
    """Where the sampler's log-probs are not the trainer's, and rollouts outlive the policy that sampled them."""
    keep_all: bool = False
    """Whether completions without advantage are computed all the same, because something else is learnt from them."""


class RolloutBatches:
    """Steps of `batch_size` prompts and `num_generations` completions of each, from the policy as it is when they are asked for.

    `args` is an `OnlineConfig`. With `steps_per_generation` or `num_iterations` above 1 a sampling is for several steps: those to come are
    part of a checkpoint.
    """

    def __init__(self, wiring: Wiring, args: Any, max_tokens: int, here: Launch) -> None:
        self._w, self._args, self._max_tokens, self._here = wiring, args, max_tokens, here
        full, rest = divmod(len(wiring.prompts), args.batch_size * args.steps_per_generation)
        self.steps_per_epoch: int | None = (full * args.steps_per_generation + -(-rest // args.batch_size)) * args.num_iterations
        self._pending: list[tuple[Example, ...]] = []
        """The steps to come of the last sampling."""
        self._after: tuple[Cursor, float] = ((0, 0), 0.0)
        """Where the prompts go on after them, and the epochs that are done by then."""
        self._before: tuple[float, int] = (0.0, 1)
        """The epochs that were done before them, and how many they were."""
        self._given: Cursor = (0, 0)
        self._advice = Advice()

    def steps(self, cursor: Cursor) -> Iterator[StepBatch]:
        """Endless. A cursor that is not the last one given begins anew there."""
        if cursor != self._given:
            self._pending = []
        metrics: Totals = {}
        while True:
            if not self._pending:
                metrics |= self._sample(cursor)
            examples = [part for whole in self._pending.pop(0) for part in split_example(whole, self._max_tokens)]
            (after, done), (before, steps) = self._after, self._before
            done -= (done - before) * len(self._pending) / steps  # each step has its share of the prompts
            cursor = self._given = (cursor[0], max(1, cursor[1])) if self._pending else after
            step = make_step(examples or [NOTHING], self._max_tokens, self._here.rank, self._here.world_size, cursor, done)
            self._w.phase("training", 0, 0)
            begun, beside = time.monotonic(), self._w.beside()
            yield replace(step, metrics=metrics)
            taken = time.monotonic() - begun - (self._w.beside() - beside)
            metrics = {"time/training": (taken, 1)} if self._here.main else {}

    # A sampling

    def _sample(self, cursor: Cursor) -> Totals:
        """Fills `_pending`; returns what was measured, on rank 0."""
        w, args, step = self._w, self._args, self._w.steps_done()
        kept, dropped, collected, after = self._groups(cursor, step)
        w.phase("judging", 0, 0)
        before, self._after = cursor[0] + cursor[1] / len(w.prompts), (after, after[0] + after[1] / len(w.prompts))
        w.failures.add([rollout.rewards for group in (*kept, *dropped) for rollout in group.rollouts])
        judged, others = w.judge(kept), w.judge(dropped) if dropped else Judged(rewards=(), advantages=(), signal=())
        taken = [[self._takes(group, i, judged.rewards[g][i]) for i in range(len(group.rollouts))] for g, group in enumerate(kept)]
        made = [
            examples_of(group, mine, advantages, keep_all=w.keep_all)
            for group, mine, advantages in zip(kept, taken, judged.advantages, strict=True)
        ]
        if w.score is not None:
            made = [[with_behaviour(one, logp) for one, logp in zip(group, w.score(group), strict=True)] for group in made]
        first = range(0, len(made), args.batch_size)
        steps = [tuple(one for group in made[i : i + args.batch_size] for one in group) for i in first]
        self._pending = steps * args.num_iterations
        self._before = before, len(self._pending)
        if not self._here.main:
            return {}
        said: dict[str, Any] = {"names": w.rewards, "text": w.text, "step": step}
        lines = lines_of(kept, judged, name="train", **said)
        w.files.append(lines + lines_of(dropped, others, name="train, dropped", **said))
        found = measured([*kept, *dropped], [*judged.rewards, *others.rewards], w.rewards) | judged.metrics | _clock(collected)
        if args.dynamic_sampling:
            found |= {"dynamic_sampling/rounds": (len(collected), 1), "dynamic_sampling/dropped": (len(dropped), 1)}
        for sentence in self._advice.of(means(found)):
            w.say(sentence)
        if w.show is not None:
            w.show(lines)
        return found

    def _groups(self, cursor: Cursor, step: int) -> tuple[list[Group], list[Group], list[Collected], Cursor]:
        """Those to learn from, with dynamic sampling those that were replaced, all samplings, and where the prompts go on.

        An epoch's last sampling may be smaller: replacements do not come from the next epoch.
        """
        w, args, (epoch, index) = self._w, self._args, cursor
        wanted = args.batch_size * args.steps_per_generation
        kept, dropped, collected = list[Group](), list[Group](), list[Collected]()
        for _ in range(1 + args.dynamic_sampling * args.dynamic_sampling_rounds):
            missing = wanted - len(kept)
            drawn = list(islice(w.prompts.drawn(epoch, index), missing))
            if drawn:
                index = drawn[-1][1]
                collected.append(w.collect([prompt for prompt, _ in drawn], args.num_generations, w.sampling, step))
                signal = w.judge(collected[-1].groups).signal if args.dynamic_sampling else [True] * len(drawn)
                for group, useful in zip(collected[-1].groups, signal, strict=True):
                    (kept if useful else dropped).append(group)
            if len(drawn) < missing or index == len(w.prompts):
                epoch, index = epoch + 1, 0
                if collected:
                    break
            if len(kept) == wanted:
                break
        if not collected:  # what was left of the epoch was too long
            return self._groups((epoch, index), step)
        if not kept:  # a step of no gradient is a step
            kept, dropped = dropped[:wanted], dropped[wanted:]
        return kept, dropped, collected, (epoch, index)

    def _takes(self, group: Group, i: int, reward: float | None) -> bool:
        """Whether a rollout is learnt from, and is part of means: not without a reward, nor, where that is asked for, cut off."""
        return reward is not None and not (self._args.mask_truncated_completions and group.rollouts[i].finish_reason == "length")

    # In a checkpoint

    def state(self) -> dict[str, Any]:
        """JSON, the same on every rank."""
        places = {"given": self._given, "after": self._after, "before": self._before}
        return {**places, "samples": self._w.files.place if self._here.main else None}

    def tensors(self) -> dict[str, Tensor]:
        """Rollouts that are yet to be learnt from."""
        if not self._pending:
            return {}
        return {"rollouts": torch.frombuffer(bytearray(packed(self._pending)), dtype=torch.uint8)}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Takes back what `state` and `tensors` gave. Raises MetricsError where samples that were written are gone."""
        (given, (after, done)) = state["given"], state["after"]
        self._given, self._after = tuple(given), (tuple(after), done)
        self._before = tuple(state.get("before", (done, 1)))
        self._pending = unpacked(tensors["rollouts"].numpy().tobytes()) if "rollouts" in tensors else []
        if self._here.main:
            self._w.files.cut(tuple(state["samples"]))

    def begin_anew(self) -> None:
        """Nothing is left of another run's samples."""
        if self._here.main:
            self._w.files.cut((0, 0))


def _clock(collected: Sequence[Collected]) -> Totals:
    found: Totals = {}
    for one in collected:
        add(found, {"time/sampling": (one.sampling_seconds, 0), "time/scoring": (one.scoring_seconds, 0)})
        add(found, {"sampling_tokens_per_second": (one.sampled, one.sampling_seconds)})
    return found | {name: (found[name][0], 1) for name in ("time/sampling", "time/scoring")}
