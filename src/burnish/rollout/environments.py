"""What answers the model between its turns, beside tools.

    class Guess(Environment):                                    # one episode: an instance for each completion under way
        def reset(self, row):                                    # messages to begin with; None: the row's own prompt
            self.number = row["number"]
            return [{"role": "user", "content": "Guess my number."}]

        def step(self, message):                                 # (what to say, reward or None, whether it is over)
            right = message["content"] == str(self.number)
            return "Right." if right else "No.", float(right), right

An environment as in TRL is any other class with `reset(**row)`, which may return text to be put at the end of the prompt; its public
methods are tools, and `get_reward()`, if it has one, is asked at the end. Instances are made by `environment_factory`, and used again
after the end of a completion, unless one was abandoned; with a dict of factories a row says by its `environment` which it is for.

A completion is worth what `get_reward` says, or the sum of its steps' rewards: 0 where it was cut off before the first, and nothing where
none of them said anything. Environments run in this process, with a deadline. What a tool raises is told to the model; what `reset`
raises ends the run (ToolError); what `step` or `get_reward` raises ends the completion, whose reward is a `Failure`.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from burnish.rewards.samples import Failure, Reward
from burnish.rollout.tools import Deadline, TookTooLongError, ToolError

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """Instead of an observation: the whole conversation as it goes on from here, the prompt included. It is sampled from anew."""

    messages: Sequence[Message]


Observation = str | Sequence[Message] | History | None
"""What an environment says: a user's message, or messages to be added, or the whole history; None: nothing, and it is over."""


class Environment(ABC):
    """One episode. See the module's docstring."""

    def reset(self, row: Mapping[str, Any]) -> Sequence[Message] | str | None:
        """Begins an episode for a row; returns its prompt, or None for the row's own."""
        return None

    @abstractmethod
    def step(self, message: Message) -> tuple[Observation, float | None, bool]:
        """Takes the model's turn (role, content, perhaps reasoning_content); returns an observation, a reward for the turn, and whether
        the episode is over. After tool calls the model's turn goes on, and no step is taken."""


@dataclass(slots=True, kw_only=True)
class Episode:
    """An environment under way, whichever kind it is; without one, nothing but tools."""

    functions: Mapping[str, Callable[..., Any]]
    """Tools by name."""
    schemas: Sequence[dict[str, Any]]
    instance: Any = None
    rewards: list[float | None] = field(default_factory=list)
    """Of each step."""
    failure: Failure | None = None
    lost: bool = False
    """Whether a call of it was abandoned, so that it cannot be used again."""

    def prompt(self, row: Mapping[str, Any], deadline: Deadline) -> Any:
        """Resets it; the prompt to begin with. Raises ToolError."""
        self.rewards, self.failure = [], None
        given = row.get("prompt")
        if self.instance is None:
            return given
        ours = isinstance(self.instance, Environment)
        try:
            said = deadline(self.instance.reset, row) if ours else deadline(self.instance.reset, **row)
        except Exception as error:
            reason = _reason(error)
            raise ToolError(f"The environment {self.name} cannot be reset for a row: it {reason}; mend it, or the row.") from error
        if ours or said is None:
            return given if said is None else said
        if given is None:
            return [{"role": "user", "content": said}]
        if isinstance(given, str):
            return given + said
        return [*given[:-1], {**given[-1], "content": given[-1]["content"] + said}]

    @property
    def name(self) -> str:
        return type(self.instance).__name__

    def step(self, message: Message, deadline: Deadline) -> Observation:
        """What the environment says to a turn without calls; None: the completion is over."""
        if not isinstance(self.instance, Environment):
            return None
        try:
            observation, reward, over = deadline(self.instance.step, dict(message))
            if not isinstance(observation, str | History | list | tuple | None):
                raise TypeError(f"it says a {type(observation).__name__}; give text, messages or a History")
            self.rewards.append(_number(reward))
        except Exception as error:  # noqa: BLE001 - an environment's failure is its completion's
            self.fail(error)
            return None
        return None if over else observation

    def fail(self, error: Exception) -> None:
        self.lost |= isinstance(error, TookTooLongError)
        self.failure = Failure(f"{self.name} {_reason(error).split(':')[0]}", str(error))

    def reward(self, deadline: Deadline) -> Reward:
        """Of the whole completion: what `get_reward` says, or the sum over steps, 0 before the first; None where none said anything."""
        steps = isinstance(self.instance, Environment)
        if self.failure is None and not steps and not self.lost:
            try:
                self.rewards = [_number(deadline(self.instance.get_reward))]
            except Exception as error:  # noqa: BLE001 - an environment's failure is its completion's
                self.fail(error)
        if self.lost and self.failure is None:
            self.failure = Failure(f"{self.name} was abandoned", "a call of it never ended")
        given = [reward for reward in self.rewards if reward is not None]
        silent = not given and (not steps or bool(self.rewards))
        return self.failure or (None if silent else math.fsum(given))


def _number(reward: Any) -> float | None:
    if reward is None:
        return None
    if isinstance(reward, str) or not math.isfinite(number := float(reward)):
        raise ValueError(f"the reward is {reward!r}, which is no finite number")
    return number


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, TookTooLongError) else f"raised {type(error).__name__}: {error}"


class Environments:
    """Episodes from a factory, a dict of factories, or none; `tools` are there in each of them. Raises ToolError, ChatTemplateError."""

    def __init__(self, factory: Any, schemas: Callable[[Sequence[Callable[..., Any]]], list[dict[str, Any]]], tools: Sequence[Any]) -> None:
        self._named = isinstance(factory, Mapping)
        self._factories: dict[Any, Callable[[], Any]] = dict(factory) if self._named else {} if factory is None else {None: factory}
        self._free: dict[Any, list[Episode]] = {None: []}
        self._tools, self._schemas = list(tools), schemas
        self.reward_names: tuple[str, ...] = ()
        """Classes that say what a completion is worth."""
        for key in self._factories or [None]:
            episode = self._new(key)
            self._free[key] = [episode]
            if _rewards(episode.instance):
                self.reward_names = tuple(dict.fromkeys((*self.reward_names, episode.name)))

    @property
    def any(self) -> bool:
        return bool(self._factories)

    def take(self, row: Mapping[str, Any]) -> Episode:
        key = row.get("environment") if self._named else None
        if self._named and key not in self._factories:
            raise ToolError(f"A row's environment is {key!r}; there are {', '.join(map(repr, self._factories))}.")
        free = self._free[key]
        return free.pop() if free else self._new(key)

    def give_back(self, row: Mapping[str, Any], episode: Episode) -> None:
        if not episode.lost:
            self._free[row.get("environment") if self._named else None].append(episode)

    def reset_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The columns that `reset` is given: all but the one that says which environment."""
        return {name: value for name, value in row.items() if name != "environment"} if self._named else row

    def rewards(self, episode: Episode, deadline: Deadline) -> tuple[Reward, ...]:
        """In the order of `reward_names`."""
        mine = None if episode.instance is None else episode.name
        return tuple(episode.reward(deadline) if name == mine else None for name in self.reward_names)

    def _new(self, key: Any) -> Episode:
        instance = self._factories[key]() if self._factories else None
        if instance is not None and "reset" not in dir(instance):
            raise ToolError(f"The environment {type(instance).__name__} has no reset; derive it from Environment, or write reset(**row).")
        functions = [*self._tools, *([] if isinstance(instance, Environment) else _methods(instance))]
        return Episode(functions={one.__name__: one for one in functions}, schemas=self._schemas(functions), instance=instance)


def _rewards(instance: Any) -> bool:
    return isinstance(instance, Environment) or "get_reward" in dir(type(instance))


def _methods(instance: Any) -> list[Callable[..., Any]]:
    """The public methods, which are the tools. Looked up on the class, for a property is not to be computed."""
    found: list[Callable[..., Any]] = []
    for one in [] if instance is None else inspect.classify_class_attrs(type(instance)):
        if not one.name.startswith("_") and one.name not in ("reset", "get_reward") and inspect.isroutine(one.object):
            plain = one.object.__func__ if isinstance(one.object, staticmethod | classmethod) else one.object
            bound = plain if one.kind == "static method" else MethodType(plain, type(instance) if one.kind == "class method" else instance)
            found.append(bound)
    return found
