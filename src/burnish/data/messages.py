"""Conversations and tool definitions as chat templates read them, from every shape in which rows hold them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from burnish.data.template import ChatTemplateError

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any] | Callable[..., Any]] | str

REASONING = ("reasoning_content", "thinking", "reasoning")
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}


def to_messages(turns: Iterable[Message]) -> list[dict[str, Any]]:
    """`messages` (role/content) and `conversations` (from/value) turns as role/content messages.

    What is None is left out at every depth: Arrow writes None for keys that only other rows have. Thinking given under any of its
    names (`reasoning_content`, `thinking`, `reasoning`) is there under the first two, as in `transformers`.

    Errors: ChatTemplateError for a turn that has neither a role nor a from, or an unknown from.
    """
    messages = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise ChatTemplateError(f"Message {i} is a {type(turn).__name__}; give a dict with role and content, or with from and value.")
        message = plain(turn)
        if "role" not in message:
            message = _from_value(i, message)
        elif not isinstance(message["role"], str):
            raise ChatTemplateError(f"Message {i} has the role {message['role']!r}; give a string.")
        thinking = next((message[key] for key in REASONING if key in message), None)
        if thinking is not None:
            message = {"thinking": thinking, **message, "reasoning_content": thinking}
        messages.append(message)
    return messages


def to_tools(tools: Tools | None) -> list[dict[str, Any]] | None:
    """Tool definitions as JSON schemas, from a list of dicts or Python callables, or from a JSON string of such a list; None where empty.

    Errors: ChatTemplateError where it is none of these, or a callable lacks the types or the docstring that a schema needs.
    """
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise ChatTemplateError(f"The tools are not valid JSON ({error.msg}); give a list of JSON schemas.") from error
    if not tools:
        return None
    if not isinstance(tools, (list, tuple)):
        raise ChatTemplateError(f"The tools are a {type(tools).__name__}; give a list of JSON schemas or functions.")
    return [_schema(tool) for tool in tools]


def plain(value: Any) -> Any:
    """Only dicts, lists, strings, numbers and booleans, for templates are untrusted and objects have methods; no None in a dict."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return f"<{type(value).__name__}>"


def _from_value(i: int, turn: dict[str, Any]) -> dict[str, Any]:
    speaker = turn.pop("from", None)
    if speaker is None:
        raise ChatTemplateError(f"Message {i} has the keys {sorted(turn)}; give role and content, or from and value.")
    if speaker not in _ROLES:
        raise ChatTemplateError(f"Message {i} is from {speaker!r}; known are {', '.join(_ROLES)}.")
    value = turn.pop("value", "")
    if speaker != "function_call":
        return {"role": _ROLES[speaker], "content": value, **turn}
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ChatTemplateError(f"Message {i} is a function_call that is not valid JSON ({error.msg}); give name and arguments.") from error
    calls = calls if isinstance(calls, list) else [calls]
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call} for call in calls], **turn}


def _schema(tool: Any) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        return plain(tool)
    if not callable(tool):
        raise ChatTemplateError(f"A tool is a {type(tool).__name__}; give a JSON schema or a function.")
    from transformers.utils import get_json_schema

    try:
        return get_json_schema(tool)
    except Exception as error:  # noqa: BLE001 - its two exceptions share no base but Exception
        raise ChatTemplateError(f"No JSON schema can be made of a tool: {str(error).rstrip('.')}.") from error


def in_parts(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def with_arguments(message: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
    """Tool-call arguments as dicts, or as JSON text. Text that is no JSON object stays as it is."""
    if not message.get("tool_calls"):
        return message
    return {**message, "tool_calls": [_read_call(call, as_text) for call in message["tool_calls"]]}


def _read_call(call: Any, as_text: bool) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _read_call(call["function"], as_text)}
    arguments = call.get("arguments")
    if as_text and isinstance(arguments, dict):
        return {**call, "arguments": json.dumps(arguments, ensure_ascii=False)}
    if not as_text and isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except json.JSONDecodeError:
            return call
        return {**call, "arguments": read} if isinstance(read, dict) else call
    return call
