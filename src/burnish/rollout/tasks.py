"""Evaluation of a policy that samples: prompts as tasks, each set with sampling options of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from burnish.config.online import OnlineConfig
from burnish.config.sampling import SamplingConfig
from burnish.config.values import ConfigError
from burnish.ops.reduce import means
from burnish.rollout.collect import Collector
from burnish.rollout.drawing import Prompts
from burnish.rollout.groups import Group, Judged
from burnish.rollout.measure import deviation, measured
from burnish.rollout.sampler import Sampling

TOLD = ("completions/mean_length", "completions/clipped_ratio")
OPTIONS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def sampling_of(sampling: Sampling, args: OnlineConfig, prefix: str) -> Sampling:
    """The sampling of an evaluation set: that of training, but for what `eval_sampling` says of all sets, or of this one.

    Raises ConfigError for options that are none.
    """
    said = args.eval_sampling or {}
    name = prefix.removeprefix("eval").removeprefix("_")
    if said and all(isinstance(one, Mapping) for one in said.values()):
        said = said.get(name, {})
    if unknown := sorted(set(said) - set(OPTIONS)):
        raise ConfigError(f"eval_sampling has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}, for all sets or by the name of a set.")
    checked = SamplingConfig(**said)
    values = {"temperature": checked.temperature, "top_k": checked.top_k, "top_p": checked.top_p, "min_p": checked.min_p or 0.0}
    values |= {"repetition_penalty": checked.repetition_penalty}
    changes: dict[str, Any] = {option: values[option] for option in said}
    return replace(sampling, **changes)


def pass_at(k: int, n: int, right: int) -> float:
    """The probability that one of k completions drawn from n, `right` of them right, is right (Chen et al. 2021, arXiv:2107.03374, eq. 1).

    Worked example: of 4 completions 1 is right; k = 2: 1 - C(3, 2) / C(4, 2) = 1 - 3/6 = 0.5.
    """
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


class Tasks:
    """Metrics of a set: mean reward and share of successes, each with its standard error over prompts, and pass@k for k up to n."""

    def __init__(
        self, args: OnlineConfig, collect: Collector, judge: Callable[[Sequence[Group]], Judged], sampling: Sampling, names: Sequence[str]
    ) -> None:
        self._args, self._collect, self._judge, self._sampling, self._names = args, collect, judge, sampling, tuple(names)

    def __call__(self, prefix: str, prompts: Prompts, step: int) -> tuple[dict[str, float], Sequence[Group], Judged]:
        """Metrics, the groups and what they are worth. Call on every rank."""
        args, sampling = self._args, sampling_of(self._sampling, self._args, prefix)
        n = 1 if sampling.temperature == 0 else args.num_generations_eval or args.num_generations
        collected = self._collect(list(prompts.all()), n, sampling, step)
        judged = self._judge(collected.groups)
        found = means(measured(collected.groups, judged.rewards, self._names))
        told = {name: found[name] for name in ("reward", "reward_stderr", *TOLD) if name in found}
        told |= {name: value for name, value in found.items() if name.startswith(("rewards/", "tools/")) and value}
        return told | self._success(judged.rewards, n), collected.groups, judged

    def _success(self, rewards: Sequence[Sequence[float | None]], n: int) -> dict[str, float]:
        """A completion without a reward is no success."""
        right = [sum(one is not None and one >= self._args.success_reward for one in group) for group in rewards]
        shares = [count / n for count in right]
        found = {"accuracy": math.fsum(shares) / len(shares), "accuracy_stderr": deviation(shares) / math.sqrt(len(shares))}
        ks = [2**i for i in range(1, n.bit_length()) if 2**i <= n]
        return found | {f"pass@{k}": math.fsum(pass_at(k, n, one) for one in right) / len(right) for k in ks}
