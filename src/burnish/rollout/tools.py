"""Functions that the model may call between its turns, and the deadline for each call.

A tool is a Python function, or an `async` one, with types and a docstring from which its schema is made
(`transformers.utils.get_json_schema`). It runs in this process, in a thread, for it may hold state. A thread cannot be ended from outside:
a call that is not over at its deadline is abandoned, with whatever it holds.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from burnish.data.messages import to_tools


class ToolError(ValueError):
    """A tool or an environment cannot be used. One sentence: which, why, and what to do."""


class TookTooLongError(Exception):
    """A call was abandoned at its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the model asks for."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    """Where the model's format gives a call one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a call, in words for the model."""

    name: str
    content: str
    failed: bool = False
    abandoned: bool = False


def schemas_of(functions: Sequence[Callable[..., Any]]) -> list[dict[str, Any]]:
    """JSON schemas, in order. Raises ToolError for two of one name, ChatTemplateError for one without types or a docstring."""
    for function in functions:
        if not inspect.isroutine(function):
            raise ToolError(f"A tool is a {type(function).__name__}; give a function with types and a docstring.")
    names = [function.__name__ for function in functions]
    for name in names:
        if names.count(name) > 1:
            raise ToolError(f"There are {names.count(name)} tools called {name!r}; give each a name of its own.")
    return to_tools(list(functions)) or []


class Deadline:
    """Calls functions, and waits for none of them longer than `seconds`. Coroutines share one event loop, as long as it answers."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def __call__(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        """What the function returns or raises; TookTooLongError at the deadline."""
        return self.start(function, *given, **named)()

    def start(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Callable[[], Any]:
        """Begins the call, and returns what waits for its end."""
        answer: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        awaited: list[Future[Any]] = []

        def work() -> None:
            try:
                value = function(*given, **named)
                if inspect.iscoroutine(value):
                    awaited.append(asyncio.run_coroutine_threadsafe(value, self._running()))
                    value = awaited[0].result()
                answer.put((True, value))
            except Exception as error:  # noqa: BLE001 - whatever a tool raises is an answer to the model
                answer.put((False, error))
            except BaseException as error:  # noqa: BLE001 - a tool that exits ends its thread alone
                answer.put((False, RuntimeError(f"it raised {type(error).__name__}")))

        end = time.monotonic() + self.seconds
        threading.Thread(target=work, name=f"tool {function}", daemon=True).start()

        def wait() -> Any:
            try:
                well, value = answer.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                for one in awaited:
                    one.cancel()
                self._loop = None  # what hangs may be the loop itself
                raise TookTooLongError(f"took more than {self.seconds:g} s") from None
            if not well:
                raise value
            return value

        return wait

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="tools", daemon=True).start()
            return self._loop


def run(calls: Sequence[Call], functions: Mapping[str, Callable[..., Any]], deadline: Deadline) -> list[Result]:
    """The results, in the order of the calls. Coroutines run at the same time, other functions one after the other.

    What a tool raises, an unknown name and a deadline that has passed are results like others, which begin with "error: ". After a call
    that was abandoned no other function is begun.
    """
    begun: dict[int, Callable[[], Any]] = {}
    for i, call in enumerate(calls):
        function = functions.get(call.name)
        if function is not None and inspect.iscoroutinefunction(function):
            begun[i] = deadline.start(function, **call.arguments)
    results: list[Result] = []
    for i, call in enumerate(calls):
        if call.name not in functions:
            known = ", ".join(functions) or "none"
            results.append(Result(name=call.name, content=f"error: there is no tool {call.name!r}; there are: {known}", failed=True))
        elif i not in begun and any(result.abandoned for result in results):
            results.append(Result(name=call.name, content="error: not called, because an earlier call never ended", failed=True))
        else:
            results.append(_result(call, begun[i] if i in begun else deadline.start(functions[call.name], **call.arguments)))
    return results


def _result(call: Call, wait: Callable[[], Any]) -> Result:
    try:
        return Result(name=call.name, content=str(wait()))
    except TookTooLongError as error:
        return Result(name=call.name, content=f"error: {call.name} {error}", failed=True, abandoned=True)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is an answer to the model
        return Result(name=call.name, content=f"error: {type(error).__name__}: {error}".rstrip(": "), failed=True)
