"""Tasks of reasoning-gym (Stojanovski et al. 2025, arXiv:2505.24760): rows without end, and the reward of each task.

    rows("chain_sum", size=1000, seed=0, max_terms=4)          a training set
    reward_funcs=["reasoning_gym:chain_sum"]                   its reward

The score is the task's own, as it is: between 0 and 1, and of a wrong answer often 0.01 or 0.05, where it could be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from burnish.rewards.answers import column, final_answer
from burnish.rewards.samples import RewardError, Sample

SYSTEM = "Think about the question, then give your final answer between <answer> and </answer>, and nothing else there."


def rows(task: str, size: int, seed: int = 0, *, system: str | None = SYSTEM, **config: Any) -> list[dict[str, Any]]:
    """`size` rows of a task: "prompt" (messages), "question", "answer" and "metadata" (JSON, which every file of rows can hold).

    `config` is the task's own. Raises RewardError for a task that reasoning-gym does not have, and a configuration that it does not take.
    """
    try:
        made = _library().create_dataset(_known(task), size=size, seed=seed, **config)
        entries = [made[i] for i in range(size)]
    except (TypeError, AssertionError, ValueError) as error:
        raise RewardError(f"reasoning-gym's {task!r} does not take {config!r} ({error}).") from error
    first = [] if system is None else [{"role": "system", "content": system}]
    return [
        {
            "prompt": [*first, {"role": "user", "content": entry["question"]}],
            "question": entry["question"],
            "answer": entry["answer"],
            "metadata": json.dumps(_marked(entry["metadata"]), default=str),
        }
        for entry in entries
    ]


def reasoning_gym(task: str) -> Callable[[Sample], float]:
    """The task's reward of the final answer (`final_answer`), of rows with the columns that `rows` makes.

    Raises RewardError for a task that reasoning-gym does not have.
    """
    score = _library().get_score_answer_fn(_known(task))

    def reward(sample: Sample) -> float:
        metadata = column(sample, "metadata")
        entry = {**sample.columns, "metadata": json.loads(metadata, object_hook=_unmarked) if isinstance(metadata, str) else metadata}
        column(sample, "answer")
        return float(score(answer=final_answer(sample.text), entry=entry))

    return reward


def _marked(one: Any) -> Any:
    """With tuples as mappings: a list is something else to some tasks, and JSON has no tuples."""
    if isinstance(one, dict):
        return {name: _marked(value) for name, value in one.items()}
    if isinstance(one, list | tuple):
        return {"tuple": list(map(_marked, one))} if isinstance(one, tuple) else list(map(_marked, one))
    return one


def _unmarked(one: dict[str, Any]) -> Any:
    return tuple(one["tuple"]) if list(one) == ["tuple"] else one


def _library() -> Any:
    try:
        from reasoning_gym import factory
    except ImportError as error:
        raise RewardError("Tasks of reasoning-gym need the package reasoning-gym; pip install reasoning-gym.") from error
    import reasoning_gym  # noqa: F401  its tasks sign in as they are imported

    return factory


def _known(task: str) -> str:
    known = _library().DATASETS
    if task not in known:
        raise RewardError(f"reasoning-gym has no task {task!r}; it has {', '.join(sorted(known))}.")
    return task
