"""What a reward function may be, and how it is called.

    def reward(sample) -> float | None                                        one completion, a `Sample`; see `samples.py`
    def reward(prompts, completions, completion_ids, **columns) -> list       all completions of a prompt; `async` as well, as in TRL

A function takes one completion where its one required parameter is called anything but prompts, completions or completion_ids and it has
no ``**``. One of the second kind is given, by name, what its signature takes, or with ``**`` everything: the three above, each a list with
an entry for each completion; every other column of the row, likewise; and `trainer_state` (which has `global_step`),
``log_metric(name, value)`` and ``log_extra(column, values)``. The last three go to functions of the first kind, too.

None says that the function has nothing to say of a completion. Anything else that is no finite number is a `Failure`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.rewards.samples import RewardError, Sample

OF_ALL = ("prompts", "completions", "completion_ids")
OF_THE_RUN = ("trainer_state", "log_metric", "log_extra")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """What a reward is told of the run."""

    global_step: int


@dataclass(slots=True, kw_only=True)
class Book:
    """What a reward writes down beside its rewards."""

    samples: int
    extras: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    metrics: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """A column for the table of completions, with a value for each. What is no number, text, truth value or None is kept as text."""
        if len(values) != self.samples:
            raise ValueError(f"log_extra({column!r}) was given {len(values)} values for {self.samples} completions")
        self.extras[column] = [one if isinstance(one, str | int | float | None) else str(one) for one in values]

    def log_metric(self, name: str, value: float) -> None:
        """A number, to be averaged over the step."""
        self.metrics[name].append(float(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardFunc:
    """A reward function under the name that metrics have for it."""

    name: str
    function: Callable[..., Any]
    of: Literal["sample", "group"]
    """What it is called with: one completion, or all of a prompt."""
    takes: frozenset[str] | None
    """Names of its parameters; None: any."""
    needs: frozenset[str]
    """Those without a default."""

    def __call__(self, samples: Sequence[Sample], step: int, book: Book) -> Any:
        """What the function returns for `samples`, of which there is one where it takes one: not checked, but in a list of as many.

        Raises what the function raises; and RewardError where the row lacks a column that it needs.
        """
        run = {"trainer_state": TrainerState(global_step=step), "log_metric": book.log_metric, "log_extra": book.log_extra}
        if self.of == "sample":
            return [_awaited(self.function(samples[0], **self._taken(run)))]
        given: dict[str, Any] = {name: [one.columns[name] for one in samples] for name in samples[0].columns}
        given |= run
        given["prompts"] = [one.prompt for one in samples]
        given["completions"] = [one.completion for one in samples]
        given["completion_ids"] = [one.completion_ids.tolist() for one in samples]
        if missing := sorted(self.needs - set(given)):
            raise RewardError(f"needs the column {missing[0]!r}, which the row does not have")
        return _awaited(self.function(**self._taken(given)))

    def _taken(self, given: dict[str, Any]) -> dict[str, Any]:
        return given if self.takes is None else {name: value for name, value in given.items() if name in self.takes}


def _awaited(given: Any) -> Any:
    async def wait() -> Any:
        return await given

    return asyncio.run(wait()) if inspect.isawaitable(given) else given


def reward_func(function: Callable[..., Any], name: str | None = None) -> RewardFunc:
    """`function` as the pool calls it. Raises RewardError where it can be called in neither way."""
    name = name or name_of(function)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        raise RewardError(f"The reward {name!r} has no signature to be read; wrap it in a function of Python's.") from None
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needs = [p for p in plain if p.default is p.empty]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not anything and len(needs) == 1 and needs[0].name not in (*OF_ALL, *OF_THE_RUN) and needs[0].kind is not needs[0].KEYWORD_ONLY:
        others = frozenset(p.name for p in plain) - {needs[0].name}
        return RewardFunc(name=name, function=function, of="sample", takes=others, needs=frozenset())
    nameless = [p.name for p in needs if p.kind is p.POSITIONAL_ONLY]
    if nameless or not (plain or anything):
        what = f"takes {nameless[0]!r} by position only" if nameless else "takes nothing by name"
        raise RewardError(f"The reward {name!r} {what}; give it one parameter, a sample, or the parameters prompts and completions.")
    if "environments" in {p.name for p in needs}:
        raise RewardError(f"The reward {name!r} needs 'environments', which live in another process; log what it needs in a column.")
    takes = None if anything else frozenset(p.name for p in plain)
    return RewardFunc(name=name, function=function, of="group", takes=takes, needs=frozenset(p.name for p in needs))


def name_of(function: Any) -> str:
    """Its ``__name__``, or that of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return str(function.__name__)
    except AttributeError:
        return type(function).__name__
