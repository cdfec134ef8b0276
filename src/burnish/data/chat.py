"""Chat rows → text with exact assistant spans → token segments, for any chat template, with or without `{% generation %}` marks.

    renderer = ChatRenderer(tokenizer)                                # compiles the template once; keep it for all rows
    rendering = renderer.render(messages, tools=tools)                # Rendering(text, spans, …)
    prompt, completion = renderer.render_pair(prompt, completion)     # conversational prompt/completion rows
    encoded = renderer.encode([rendering, …])                         # one batch call of the tokenizer
    encoded.rows[0]  → (Segment(token_ids=…, source="prompt", trained=False), Segment(…, source="model", trained=True), …)

The mask covers what the model generates in each assistant turn (thinking, content, tool calls, the end-of-turn token) and nothing
else: no header, no whitespace after the end-of-turn token, no word of anyone else. Where the template has marks, the marks decide.
Spans that cannot be established exactly are a `ChatTemplateError`, never a guess. How they are found: `data/spans.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from burnish.data.encode import Encoded, SegmentEncoder
from burnish.data.spans import PROBE, REASONING, Conversation, Rendering, Span, Tokens, Turn, paint
from burnish.data.template import ChatTemplateError, FollowedTemplate, TemplateRefusalError, Trace

__all__ = ["ChatRenderer", "ChatTemplateError", "Encoded", "Message", "Rendering", "Span", "Tools", "to_messages", "to_tools"]

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any] | Callable[..., Any]] | str

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
_RESERVED = ("messages", "tools", "add_generation_prompt")


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
        message = _plain(turn)
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


class ChatRenderer:
    """Renders and encodes chat rows with one tokenizer and one template; the tokenizer is copied, so change it before.

    `chat_template` overrides the tokenizer's. `stop_token_ids`: further tokens at which the model stops generating, such as those
    in its `generation_config.eos_token_id`. Errors: ChatTemplateError where there is no template or it does not compile.
    """

    def __init__(self, tokenizer: Any, chat_template: str | None = None, *, stop_token_ids: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._override = chat_template
        self._stop_ids = set(stop_token_ids) | ({tokenizer.eos_token_id} - {None})
        self._tokens = _tokens(tokenizer, self._stop_ids)
        self._special = dict(tokenizer.special_tokens_map)
        self._templates: dict[str, FollowedTemplate] = {}
        self._in_parts: dict[str, bool] = {}
        self._text_arguments: set[str] = set()
        self._prompts: dict[tuple[str, str], str] = {}
        self._encoder: SegmentEncoder | None = None
        self._source(None)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> Rendering:
        """The conversation as text with its spans. `messages` in either spelling (see `to_messages`); the caller's objects are not changed.

        Tool-call arguments are given to the template as dicts (JSON strings are read), or as JSON strings where it takes no others.

        Errors: ChatTemplateError, naming the message, where the template refuses the conversation or a span cannot be established exactly.
        """
        conversation, turns = self._turns(to_messages(messages), to_tools(tools), chat_template_kwargs, add_generation_prompt)
        return _rendering(conversation, turns)

    def text(
        self, messages: Sequence[Message], *, tools: Tools | None = None, chat_template_kwargs: Mapping[str, Any] | None = None
    ) -> str:
        """The text of `render`, for rows of which every token is trained: no span is looked for. Errors: as `render`, but for spans."""
        source, _, variables = self._given(to_tools(tools), chat_template_kwargs)
        return self._follow(source, self._read(source, to_messages(messages)), variables, False)[1].text

    def render_pair(
        self,
        prompt: Sequence[Message],
        completion: Sequence[Message],
        *,
        tools: Tools | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Rendering, Rendering]:
        """(prompt with its generation prompt, the rest of the whole conversation). The two texts concatenate to the whole rendering.

        The boundary is where the model's own text starts in the completion's first message. No span of the prompt is trained;
        `end_of_turn` and `departures` are the completion's. Errors: as `render`, and where either part is empty.
        """
        before, after = to_messages(prompt), to_messages(completion)
        if not before or not after:
            raise ChatTemplateError(f"The {'completion' if before else 'prompt'} has no message; give at least one.")
        n = len(before)
        conversation, turns = self._turns([*before, *after], to_tools(tools), chat_template_kwargs, False)
        cut = min((turn.start for turn in turns if turn.message == n), default=conversation.trace.blocks.get(n, (None,))[0])
        if cut is None:
            raise ChatTemplateError("The chat template gives the completion's first message no place, so the prompt has no end.")
        whole = _rendering(conversation, [turn for turn in turns if turn.start >= cut])
        left = tuple(replace(span, end=min(span.end, cut), trained=False) for span in whole.spans if span.start < cut)
        right = tuple(
            replace(span, start=max(span.start, cut) - cut, end=span.end - cut) for span in whole.spans if span.end > cut
        )
        text = whole.text[:cut]
        return Rendering(text=text, spans=left), replace(whole, text=whole.text[cut:], spans=right, before=text)

    def encode(self, renderings: Sequence[Rendering]) -> Encoded:
        """Token segments of each rendering. No special tokens are added: the template has written them.

        Ids equal `tokenizer.apply_chat_template(..., tokenize=True)` in every row that is not counted in `straddled`.
        """
        if self._encoder is None:
            self._encoder = SegmentEncoder(self._tokenizer)
        return self._encoder(renderings)

    def end_of_turn_problem(self, rendering: Rendering, stop_token_ids: Iterable[int] = ()) -> str | None:
        """One sentence where the last trained turn does not end in the tokenizer's EOS or another stop token; None where all is well."""
        if not any(span.trained for span in rendering.spans):
            return None
        stops = self._stop_ids | set(stop_token_ids)
        token = rendering.end_of_turn
        if token is not None and self._tokenizer.convert_tokens_to_ids(token) in stops:
            return None
        known = ", ".join(sorted(repr(self._tokenizer.convert_ids_to_tokens(stop)) for stop in stops)) or "none"
        ends = "in no added token" if token is None else f"in {token!r}"
        return f"The trained turns end {ends}, at which generation does not stop (it stops at: {known}); set eos_token to what ends a turn."

    def _turns(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, kwargs: Mapping[str, Any] | None, prompt: bool
    ) -> tuple[Conversation, list[Turn]]:
        source, given, variables = self._given(tools, kwargs)
        template = self._templates[source]
        messages = self._read(source, messages)
        messages, trace = self._follow(source, messages, variables, prompt)
        if template.has_marks:
            constant = None
        else:
            constant = self._constant_prompt(template, source, messages, variables, trace, given)
        conversation = Conversation(
            template=template, messages=messages, variables=variables, trace=trace, tokens=self._tokens, constant_prompt=constant
        )
        return conversation, conversation.marked_turns() if template.has_marks else conversation.turns()

    def _given(
        self, tools: list[dict[str, Any]] | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """The template's text, a row's own arguments, and all that the template sees beside the messages."""
        given = _plain(kwargs or {})
        reserved = [name for name in _RESERVED if name in given]
        if reserved:
            raise ChatTemplateError(f"chat_template_kwargs holds {reserved[0]!r}, which has a place of its own; take it out.")
        return self._source(tools), given, {"documents": None, **self._special, **given, "tools": tools}

    def _read(self, source: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages as this template reads them."""
        if not messages:
            raise ChatTemplateError("The conversation has no message; give at least one.")
        return [_in_parts(message) for message in messages] if self._takes_parts(source) else messages

    def _follow(
        self, source: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], prompt: bool
    ) -> tuple[list[dict[str, Any]], Trace]:
        template = self._templates[source]
        calls = any("tool_calls" in message for message in messages)
        read = [_with_arguments(message, as_text=source in self._text_arguments) for message in messages] if calls else messages
        try:
            return read, template.trace(read, variables, prompt=prompt)
        except TemplateRefusalError as refusal:
            if not calls or source in self._text_arguments or not isinstance(refusal.__cause__, TypeError):
                raise
            as_text = [_with_arguments(message, as_text=True) for message in messages]
            try:
                trace = template.trace(as_text, variables, prompt=prompt)
            except TemplateRefusalError:
                raise refusal from None
            self._text_arguments.add(source)  # the template joins them to text
            return as_text, trace

    def _constant_prompt(
        self,
        template: FollowedTemplate,
        source: str,
        messages: list[dict[str, Any]],
        variables: Mapping[str, Any],
        trace: Trace,
        given: Mapping[str, Any],
    ) -> str | None:
        if not template.prompt_is_constant(trace.loop):
            return None
        key = (source, json.dumps(given, sort_keys=True) if given else "")
        if key not in self._prompts:
            try:
                prompted = template.trace(messages, variables, prompt=True)
            except TemplateRefusalError:
                return None
            if prompted.loop != trace.loop:
                return None
            self._prompts[key] = prompted.text[prompted.end :]
        return self._prompts[key]

    def _source(self, tools: list[dict[str, Any]] | None) -> str:
        """The template's text, compiled. A tokenizer may have another template for rows with tools."""
        try:
            source = self._tokenizer.get_chat_template(self._override, tools)
        except ValueError as error:
            name = type(self._tokenizer).__name__
            raise ChatTemplateError(f"The tokenizer ({name}) has no chat template; set one, or give chat_template.") from error
        if source not in self._templates:
            self._templates[source] = FollowedTemplate(source)
        return source

    def _takes_parts(self, source: str) -> bool:
        """Whether the template leaves out content that is a string, and writes it where it is a list of parts."""
        if source not in self._in_parts:
            probe = [{"role": role, "content": PROBE} for role in ("user", "assistant")]
            seen = []
            for messages in (probe, [_in_parts(message) for message in probe]):
                try:
                    trace = self._templates[source].trace(messages, {"documents": None, **self._special, "tools": None})
                    seen.append(trace.text.count(PROBE))
                except TemplateRefusalError:
                    seen.append(0)
            self._in_parts[source] = seen[0] < 2 <= seen[1]
        return self._in_parts[source]


def _rendering(conversation: Conversation, turns: Sequence[Turn]) -> Rendering:
    trace = conversation.trace
    return Rendering(
        text=trace.text,
        spans=paint(trace, conversation.messages, turns),
        end_of_turn=turns[-1].closed_by if turns else None,
        departures=sum(not turn.prompted for turn in turns),
    )


def _tokens(tokenizer: Any, stop_ids: Iterable[int]) -> Tokens:
    added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    added |= dict.fromkeys(tokenizer.all_special_tokens, True)
    return Tokens(
        added=tuple(sorted(added, key=len, reverse=True)),
        special=frozenset(token for token, special in added.items() if special),
        stops=tuple(token for token in tokenizer.convert_ids_to_tokens(sorted(stop_ids)) if token is not None),
    )


def _plain(value: Any) -> Any:
    """Only dicts, lists, strings, numbers and booleans, for templates are untrusted and objects have methods; no None in a dict."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
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
        return _plain(tool)
    if not callable(tool):
        raise ChatTemplateError(f"A tool is a {type(tool).__name__}; give a JSON schema or a function.")
    from transformers.utils import get_json_schema

    try:
        return get_json_schema(tool)
    except Exception as error:  # noqa: BLE001 - its two exceptions share no base but Exception
        raise ChatTemplateError(f"No JSON schema can be made of a tool: {str(error).rstrip('.')}.") from error


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _with_arguments(message: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
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
