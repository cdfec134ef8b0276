"""From what a user gives as `reward_funcs` to functions that the pool calls and models that the trainer runs.

a function                          see `contract.py`
"accuracy", "numeric", …            a reward that comes with Burnish (`SHIPPED`); options in `reward_kwargs`
"reasoning_gym:chain_sum"           the reward of a task of reasoning-gym
"module:function", "module.function", "path/to/file.py:function"
a transformers classifier with one label, or the folder or hub id of one: a reward model
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from burnish.config.values import nearest
from burnish.rewards.contract import RewardFunc, reward_func
from burnish.rewards.samples import RewardError

SHIPPED = {
    "accuracy": "accuracy:accuracy",
    "code": "code:code",
    "cosine": "length:cosine",
    "exact": "exact:exact",
    "numeric": "numeric:numeric",
    "reasoning_accuracy": "accuracy:reasoning_accuracy",
    "repetition": "repetition:repetition",
    "soft_overlong": "length:soft_overlong",
    "think_answer_format": "think_format:think_answer_format",
    "think_format": "think_format:think_format",
}
"""Name → where in this room the function stands that takes its options and gives the reward."""
TRL_NAMES = {
    "accuracy_reward": "accuracy",
    "get_cosine_scaled_reward": "cosine",
    "get_repetition_penalty_reward": "repetition",
    "get_soft_overlong_punishment": "soft_overlong",
    "reasoning_accuracy_reward": "reasoning_accuracy",
    "think_format_reward": "think_format",
}
PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A reward model that is not loaded yet, or a classifier that the user has loaded."""

    name: str
    model: Any


def reward_sources(given: Any, reward_kwargs: Mapping[str, Mapping[str, Any]] | None = None) -> list[RewardFunc | ModelSource]:
    """One reward or a list of them, in order, each with a name of its own: a second "f" is "f_2".

    Raises RewardError for what can be no reward, for a name that leads nowhere, and for options that a reward does not take.
    """
    several = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if not several:
        raise RewardError("There is no reward to learn from; give reward_funcs a function, a name, or a list of them.")
    options = dict(reward_kwargs or {})
    sources = [_source(one, options) for one in several]
    if options:
        raise RewardError(
            f"reward_kwargs has options of {next(iter(options))!r}, which is not in reward_funcs or takes none; leave them out."
        )
    seen: Counter[str] = Counter()
    for i, source in enumerate(sources):
        seen[source.name] += 1
        if seen[source.name] > 1:
            sources[i] = replace(source, name=f"{source.name}_{seen[source.name]}")
    return sources


def weights_of(sources: Sequence[RewardFunc | ModelSource], reward_weights: Sequence[float] | None) -> list[float]:
    """One for each reward. Raises RewardError where they are not as many."""
    if reward_weights is not None and len(reward_weights) != len(sources):
        raise RewardError(f"reward_weights has {len(reward_weights)} weights for {len(sources)} rewards; give one for each.")
    return [1.0] * len(sources) if reward_weights is None else [float(one) for one in reward_weights]


def _source(given: Any, options: dict[str, Mapping[str, Any]]) -> RewardFunc | ModelSource:
    if isinstance(given, RewardFunc | ModelSource):
        return given
    if isinstance(given, str | Path):
        return _named(str(given), options)
    if _is_module(given):
        return ModelSource(name=str(given.config.name_or_path).rstrip("/").split("/")[-1] or type(given).__name__, model=given)
    if callable(given):
        return reward_func(given)
    raise RewardError(f"A reward is a function, a name or a model, and reward_funcs has {given!r}.")


def _is_module(given: Any) -> bool:
    """Whether it is a model. Whoever has one has imported torch."""
    return "torch" in sys.modules and isinstance(given, sys.modules["torch"].nn.Module)


def _named(name: str, options: dict[str, Mapping[str, Any]]) -> RewardFunc | ModelSource:
    shipped = TRL_NAMES.get(name, name)
    if shipped in SHIPPED:
        made = pkgutil.resolve_name(f"burnish.rewards.{SHIPPED[shipped]}")
        return reward_func(_made(name, made, options.pop(name, {})), name)
    if name.startswith("reasoning_gym:"):
        from burnish.rewards.reasoning_gym import reasoning_gym

        task = name.split(":", 1)[1]
        return reward_func(reasoning_gym(task), task)
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return reward_func(_resolved(name, _from_file(Path(file)), function))
    if name.endswith(".py"):
        raise RewardError(f"{name!r} names a file; name a function in it, as {name + ':function'!r}.")
    if PLACE.fullmatch(name):
        return reward_func(_resolved(name, *name.split(":")))
    if Path(name).is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return ModelSource(name=name.rstrip("/").split("/")[-1], model=name)
    if DOTTED.fullmatch(name):
        return reward_func(_resolved(name, *name.rsplit(".", 1)))
    near = nearest(name, SHIPPED)
    raise RewardError(
        f"There is no reward {name!r}"
        + (f"; use {near!r}, the nearest." if near else f"; there are {', '.join(SHIPPED)}, module:function, and folders of models.")
    )


def _made(name: str, make: Any, options: Mapping[str, Any]) -> Any:
    try:
        return make(**options)
    except TypeError as error:
        raise RewardError(f"The reward {name!r} does not take reward_kwargs={dict(options)!r} ({error}).") from error


def _from_file(path: Path) -> str:
    """The name of the module that a file has become."""
    if not path.is_file():
        raise RewardError(f"There is no file {str(path)!r} to take a reward from.")
    module = f"reward_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[module])
    except Exception as error:
        del sys.modules[module]
        raise RewardError(f"The file {str(path)!r} could not be run to take a reward from it ({type(error).__name__}: {error}).") from error
    return module


def _resolved(name: str, module: str, function: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does, and an installed command does not
    try:
        found = pkgutil.resolve_name(f"{module}:{function}")
    except (ImportError, AttributeError) as error:
        raise RewardError(f"The reward {name!r} could not be imported ({error}).") from error
    if not callable(found):
        raise RewardError(f"The reward {name!r} is a {type(found).__name__}; name a function.")
    return found
