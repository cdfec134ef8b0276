"""What metrics of rollouts say of a run that is going nowhere, each in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

PATIENCE = 3
"""Steps in a row, before a sentence is said."""
Means = Mapping[str, float]


def _tied(means: Means) -> str | None:
    if means.get("frac_groups_with_signal", 1.0) > 0:
        return None
    reward = means.get("reward", 0.0)
    return (
        f"Every group is tied, all rewards {reward:.3g}: the task is too easy or too hard for this model, or the reward reads something "
        "else than what it says; look at the samples, or choose other prompts."
    )


def _truncated(means: Means) -> str | None:
    if means.get("completions/clipped_ratio", 0.0) < 1:
        return None
    return (
        "Every completion is cut off by max_completion_length before it ends: allow longer ones, or see whether the model ever says its "
        "end-of-turn token (a base model may not)."
    )


def _alike(means: Means) -> str | None:
    if means.get("completions/unique_ratio", 1.0) > 0.2:
        return None
    return (
        "Most completions of a prompt are the same: the policy has little left to explore; raise temperature, or lower the learning rate."
    )


def _failing(means: Means) -> str | None:
    share = means.get("rewards/failed", 0.0)
    return (
        f"{share:.0%} of the completions have no reward, because a reward failed; see rewards/failed in metrics.jsonl."
        if share > 0
        else None
    )


def _silent(means: Means) -> str | None:
    share = means.get("rewards/none", 0.0) - means.get("rewards/failed", 0.0)
    if share < 0.2:
        return None
    return f"{share:.0%} of the completions have no reward, because none has anything to say of them, and are not learnt from; is 0 meant?"


def _apart(means: Means) -> str | None:
    gap = means.get("sampling/sampling_logp_difference/mean", 0.0)
    if gap < 0.1:
        return None
    return (
        f"The sampler's log-probs are {gap:.2g} nats from the trainer's, token for token: they do not compute the same model; "
        "see that both have the same weights, dtype and temperature."
    )


RULES = {"tied": _tied, "truncated": _truncated, "alike": _alike, "failing": _failing, "silent": _silent, "apart": _apart}


class Advice:
    """Says each sentence once, when its rule has held for `PATIENCE` steps in a row."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    def of(self, means: Means) -> list[str]:
        """The sentences that are due after a step with these means."""
        due = []
        for name, rule in RULES.items():
            sentence = rule(means)
            self._held[name] = self._held[name] + 1 if sentence else 0 if self._held[name] < PATIENCE else self._held[name]
            if sentence and self._held[name] == PATIENCE:
                due.append(sentence)
        return due
