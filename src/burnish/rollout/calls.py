"""What the model said, read: reasoning, content and the calls of tools.

A tokenizer's own `response_template` decides, where it has one (transformers' `parse_response`). Else the formats that are known:

    Hermes, Qwen      <tool_call>{"name": …, "arguments": {…}}</tool_call>, any number of them
    Qwen3-Coder       <tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>
    Llama 3           the whole answer is {"name": …, "parameters": {…}}, perhaps after <|python_tag|>; several are parted by ";"
    Mistral           [TOOL_CALLS] and a list of {"name": …, "arguments": {…}}, or [TOOL_CALLS]NAME{…}
    any other         the whole answer, or a fenced block of it, is such a JSON object

A call that was meant and cannot be read is `malformed`: a sentence that says so to the model, never a guess. Nothing in the reasoning
(``<think>…</think>``) is a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from burnish.rollout.tools import Call

_HERMES = re.compile(r"<tool_call>\s*(.*?)\s*(</tool_call>|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_FENCED = re.compile(r"```(?:json|tool_call|tool_code)?\s*\n(.*?)```", re.DOTALL)
_MARKER = re.compile(r"\s*(<\|python_tag\|>|\[TOOL_CALLS\])\s*")
_NAMED = re.compile(r"([\w.-]+)(?:\[ARGS\])?\s*(?=\{)")
_BEGUN = re.compile(r"""\s*\[?\s*\{\s*"(name|type|id|arguments|parameters)"\s*:""")
_ARGUMENTS = {"arguments", "parameters"}
_KEYS = {"name", "type", "id", *_ARGUMENTS}
_EXAMPLE = '{"name": "...", "arguments": {...}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A turn of the model."""

    message: dict[str, Any]
    """role, content, and where there are any `reasoning_content` and `tool_calls`, as chat templates take them."""
    calls: tuple[Call, ...] = ()
    malformed: tuple[str, ...] = ()
    """A sentence for each call that cannot be read."""


class MalformedError(ValueError):
    """A call cannot be read."""


class TurnReader:
    """From a turn's tokens to what it says. `stop_token_ids`: with which a turn ends, and which are no part of what is said."""

    def __init__(self, tokenizer: Any, stop_token_ids: Sequence[int] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, {tokenizer.eos_token_id, *stop_token_ids} - {None}

    def text(self, token_ids: np.ndarray) -> str:
        """The turn as text, without the stop token at its end. Other special tokens stand as they are: they may begin a call."""
        ids = token_ids.tolist()
        return self._tokenizer.decode(ids[:-1] if ids and ids[-1] in self._stops else ids, skip_special_tokens=False)

    def __call__(self, token_ids: np.ndarray, context: np.ndarray, tools: Sequence[dict[str, Any]]) -> Said:
        """`context`: what the model was given, where its reasoning may have begun. `tools`: schemas; without any, nothing is a call."""
        text = self.text(token_ids)
        if self._template() is not None:
            return self._by_template(text, token_ids, context, tools)
        reasoning, answer = _reasoning(text, self._tokenizer.decode(context[-8:].tolist(), skip_special_tokens=False))
        said = read_calls(answer, {tool["function"]["name"]: tool for tool in tools}) if tools else Said(message=_message(answer))
        return said if reasoning is None else _with(said, reasoning_content=reasoning)

    def _template(self) -> Any:
        try:
            return self._tokenizer.response_template
        except AttributeError:  # an older transformers has none
            return None

    def _by_template(self, text: str, token_ids: np.ndarray, context: np.ndarray, tools: Sequence[dict[str, Any]]) -> Said:
        try:
            message = dict(self._tokenizer.parse_response(token_ids.tolist(), prefix=context.tolist(), tools=list(tools) or None))
            calls = tuple(_call({"id": one.get("id"), **one.get("function", one)}) for one in message.pop("tool_calls", None) or ())
        except Exception as error:  # noqa: BLE001 - whatever the parser raises, the answer is the model's
            reason = " ".join(str(error).split())[:200].rstrip(".")
            return Said(message=_message(text), malformed=(f"error: the answer cannot be read ({reason})",) if tools else ())
        message = {"role": "assistant", **message, "content": message.get("content") or ""}
        return _with(Said(message=message, calls=calls), **({"tool_calls": as_messages(calls)} if calls else {}))


def _reasoning(text: str, before: str) -> tuple[str | None, str]:
    """(the reasoning, the rest). A reasoning that never ends is all there is."""
    if "</think>" in text:
        reasoning, _, rest = text.partition("</think>")
        return reasoning.replace("<think>", "", 1).strip("\n"), rest
    opened = text.lstrip().startswith("<think>")
    if opened or before.rstrip().endswith("<think>"):
        return (text.replace("<think>", "", 1) if opened else text).strip("\n"), ""
    return None, text


def read_calls(text: str, tools: Mapping[str, Mapping[str, Any]]) -> Said:
    """The calls in an answer without reasoning, in the formats known. `tools`: name → schema."""
    bodies = list(_HERMES.finditer(text))
    if bodies:
        return _gathered(text, _HERMES.sub("", text), [partial(_hermes, body, tools) for body in bodies])
    marker = _MARKER.search(text)
    if marker:
        return _gathered(text, text[: marker.start()], [partial(_listed, text[marker.end() :])])
    fenced = [(body[1], text[: body.start()] + text[body.end() :]) for body in _FENCED.finditer(text)]
    for body, outside in [(text, ""), *fenced]:
        if _meant(body, tools):
            return _gathered(text, outside, [partial(_listed, body)])
    return Said(message=_message(text))


def _meant(body: str, tools: Mapping[str, Any]) -> bool:
    """Whether this can only be meant as calls: objects with a name and arguments, and nothing that calls have not; or the start of one."""
    if not _BEGUN.match(body):
        return False
    try:
        values = [one for value in _values(body) for one in (value if isinstance(value, list) else [value])]
    except MalformedError:
        return True
    return all(isinstance(one, dict) and (one.get("name") in tools or set(one) <= _KEYS) and set(one) & _ARGUMENTS for one in values)


def _gathered(text: str, outside: str, readers: Sequence[Callable[[], list[Call]]]) -> Said:
    """With a call that cannot be read none is made, and the whole text stays as content, for there is no other way to show it."""
    calls, malformed = list[Call](), list[str]()
    for reader in readers:
        try:
            calls += reader()
        except MalformedError as error:
            malformed.append(f"error: the tool call cannot be read: {error}; write {_EXAMPLE}")
    if malformed:
        return Said(message=_message(text), malformed=tuple(malformed))
    return Said(message=_message(outside) | {"tool_calls": as_messages(calls)}, calls=tuple(calls))


def _hermes(body: re.Match[str], tools: Mapping[str, Mapping[str, Any]]) -> list[Call]:
    if not body[2]:
        raise MalformedError("it has no </tool_call>")
    if function := _FUNCTION.search(body[1]):
        name = function[1].strip()
        kinds = tools.get(name, {}).get("function", {}).get("parameters", {}).get("properties", {})
        pairs = [(key.strip(), value) for key, value in _PARAMETER.findall(function[2])]
        return [Call(name=name, arguments={key: _typed(value, kinds.get(key, {})) for key, value in pairs})]
    values = _values(body[1])
    if len(values) != 1:
        raise MalformedError(f"it holds {len(values)} JSON values")
    return [_call(values[0])]


def _typed(value: str, kind: Mapping[str, Any]) -> Any:
    if kind.get("type") == "string":
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _listed(text: str) -> list[Call]:
    named = _NAMED.match(text)
    if named:
        return [_call({"name": named[1], "arguments": _values(text[named.end() :])[0]})]
    return [_call(one) for value in _values(text) for one in (value if isinstance(value, list) else [value])]


def _values(text: str) -> list[Any]:
    """JSON values one after the other, parted by whitespace or ";"."""
    decoder, values, place = json.JSONDecoder(), list[Any](), 0
    while True:
        while place < len(text) and text[place] in " \t\r\n;":
            place += 1
        if place == len(text):
            break
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise MalformedError(f"it is not valid JSON ({error.msg} at character {error.pos})") from None
        values.append(value)
    if not values:
        raise MalformedError("it is empty")
    return values


def _call(value: Any) -> Call:
    if not isinstance(value, Mapping):
        raise MalformedError(f"it is a {type(value).__name__}, and not an object")
    if not isinstance(value.get("name"), str):
        raise MalformedError("it has no name")
    arguments: Any = next((value[key] for key in sorted(_ARGUMENTS) if value.get(key) is not None), {})
    if isinstance(arguments, str):
        arguments = _values(arguments)[0] if arguments.strip() else {}
    if not isinstance(arguments, Mapping):
        raise MalformedError(f"its arguments are a {type(arguments).__name__}, and not an object")
    number = value.get("id")
    arguments = {str(key): one for key, one in arguments.items()}
    return Call(name=value["name"], arguments=arguments, id=number if isinstance(number, str) else None)


def as_messages(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """`tool_calls` of a message."""
    said = [{"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}} for call in calls]
    return [one if call.id is None else {"id": call.id, **one} for one, call in zip(said, calls, strict=True)]


def _message(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content.strip()}


def _with(said: Said, **more: Any) -> Said:
    return Said(message=said.message | more, calls=said.calls, malformed=said.malformed)
