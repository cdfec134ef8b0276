"""All rewards of a run, in the order that the user gave them: functions in the pool, and reward models in this process.

rewards = Rewards(sources, args)                             # forks: before the model is loaded
rewards.load_models(device)                                  # after it
future = rewards.submit(samples, step)                       # a prompt's completions: the functions begin
scored = rewards.finish(samples, future.result())            # the models, and all in one table
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from burnish.config.processes import processes
from burnish.config.rewards import RewardsConfig
from burnish.rewards.contract import RewardFunc
from burnish.rewards.names import ModelSource, weights_of
from burnish.rewards.pool import GroupRewards, RewardPool
from burnish.rewards.samples import Reward, RewardError, Sample

if TYPE_CHECKING:
    import torch


class Rewards:
    """`sources` as `reward_sources` gives them. Raises RewardError."""

    def __init__(self, sources: Sequence[RewardFunc | ModelSource], args: RewardsConfig) -> None:
        self.names = [one.name for one in sources]
        self.weights = weights_of(sources, args.reward_weights)
        self._functions = [i for i, one in enumerate(sources) if isinstance(one, RewardFunc)]
        self._sources = {i: one for i, one in enumerate(sources) if isinstance(one, ModelSource)}
        self._models: dict[int, Any] = {}
        self.pool = RewardPool(
            [one for one in sources if isinstance(one, RewardFunc)],
            workers=args.reward_workers or max(1, min(8, (os.cpu_count() or 1) // processes().local_world_size)),
            timeout=args.reward_timeout,
            memory_mib=args.reward_memory,
        )

    def load_models(self, device: torch.device, tokenizers: Sequence[Any] | Any = None, compute_dtype: str = "auto") -> list[str]:
        """What there is to say of them. `tokenizers`: one for each reward, None where it is a function's or saved with the model."""
        if not self._sources:
            return []
        from burnish.rewards.model import RewardModel

        several = list(tokenizers) if isinstance(tokenizers, list | tuple) else [tokenizers] * len(self.names)
        if len(several) != len(self.names):
            raise RewardError(f"There are {len(several)} reward_processing_classes for {len(self.names)} rewards; give one for each.")
        for i, source in self._sources.items():
            self._models[i] = RewardModel(source, device=device, tokenizer=several[i], compute_dtype=compute_dtype)
        return [f"Reward model {model.name}: {message}" for model in self._models.values() for message in model.messages]

    def submit(self, samples: Sequence[Sample], step: int) -> Future[GroupRewards]:
        """As `RewardPool.submit`."""
        return self.pool.submit(samples, step)

    def finish(self, samples: Sequence[Sample], functions: GroupRewards) -> GroupRewards:
        """With the models' scores, each reward in its place."""
        rewards: list[list[Reward]] = [[None] * len(self.names) for _ in samples]
        seconds = [0.0] * len(self.names)
        for column, place in enumerate(self._functions):
            seconds[place] = functions.seconds[column]
            for row, given in zip(rewards, functions.rewards, strict=True):
                row[place] = given[column]
        for place, model in self._models.items():
            started = time.perf_counter()
            for row, score in zip(rewards, model(samples), strict=True):
                row[place] = score
            seconds[place] = time.perf_counter() - started
        return replace(functions, rewards=rewards, seconds=seconds)

    def close(self) -> None:
        self.pool.close()
