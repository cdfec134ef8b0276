"""What is logged of the rollouts of a step, under TRL's names where it has one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from burnish.ops.reduce import Totals, add
from burnish.rollout.groups import Group, Rollout


def measured(groups: Sequence[Group], totals: Sequence[Sequence[float | None]], names: Sequence[str]) -> Totals:
    """Means of `groups`. `totals`: the reward of each rollout of each group, None where it has none; `names`: of the reward functions."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    return _rewards(groups, totals) | _functions(groups, rollouts, names) | _completions(groups, rollouts) | _turns(rollouts)


def _rewards(groups: Sequence[Group], totals: Sequence[Sequence[float | None]]) -> Totals:
    valid = [[one for one in group if one is not None] for group in totals]
    every = [one for group in valid for one in group]
    means = [sum(group) / len(group) for group in valid if group]
    tied = sum(len(set(group)) < 2 for group in valid)
    found: Totals = {
        "reward": (math.fsum(every), len(every)),
        "reward_std": (math.fsum(map(deviation, valid)), len(groups)),
        "frac_reward_zero_std": (tied, len(groups)),
        "frac_groups_with_signal": (len(groups) - tied, len(groups)),
        "rewards/none": (sum(map(len, totals)) - len(every), sum(map(len, totals))),
    }
    if len(means) > 1:  # completions of one prompt are not independent, their means are
        found["reward_stderr"] = (deviation(means) ** 2 / len(means), 1)
    return found


def _functions(groups: Sequence[Group], rollouts: Sequence[Rollout], names: Sequence[str]) -> Totals:
    found: Totals = {}
    for i, name in enumerate(names):
        given = [value for value in (one.rewards[i] for one in rollouts) if isinstance(value, int | float)]
        found[f"rewards/{name}/mean"] = (math.fsum(given), len(given))
        found[f"rewards/{name}/std"] = (deviation(given), 1)
    failed = Counter(failure.reason for one in rollouts for failure in one.failed)
    found["rewards/failed"] = (sum(bool(one.failed) for one in rollouts), len(rollouts))
    found |= {f"rewards/failed/{reason}": (count, len(rollouts)) for reason, count in failed.items()}
    for group in groups:
        add(found, {name: (math.fsum(values), len(values)) for name, values in group.metrics.items()})
    return found


def _completions(groups: Sequence[Group], rollouts: Sequence[Rollout]) -> Totals:
    found: Totals = {}
    lengths = [one.length for one in rollouts]
    ended = [one.length for one in rollouts if one.finish_reason != "length"]
    for infix, some in (("", lengths), ("terminated_", ended)):
        if some:
            found[f"completions/mean_{infix}length"] = (sum(some), len(some))
            found[f"completions/min_{infix}length"] = (min(some), 1)
            found[f"completions/max_{infix}length"] = (max(some), 1)
    found["completions/clipped_ratio"] = (len(lengths) - len(ended), len(lengths))
    distinct = sum(len({one.token_ids.tobytes() for one in group.rollouts}) for group in groups)
    found["completions/unique_ratio"] = (distinct, len(rollouts))
    return found


def _turns(rollouts: Sequence[Rollout]) -> Totals:
    """Every count is a mean over rollouts; failures of tools are a share of the calls."""
    counts: Counter[str] = Counter()
    for one in rollouts:
        counts.update(one.counts)
    found: Totals = {name: (float(total), float(len(rollouts))) for name, total in counts.items() if name != "tools/failures"}
    if "tools/call_frequency" in counts:
        found["tools/failure_frequency"] = (float(counts["tools/failures"]), float(counts["tools/call_frequency"]))
    return found


def deviation(values: Sequence[float]) -> float:
    """Of a sample (n - 1); 0 of fewer than two."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
