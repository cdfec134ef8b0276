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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from burnish.data.encode import Encoded, SegmentEncoder
from burnish.data.messages import Message, Tools, in_parts, plain, to_messages, to_tools, with_arguments
from burnish.data.outline import Blindfolded, Outline, contents_of, outline_of
from burnish.data.spans import ASSISTANT_ROLES, PROBE, Conversation, Rendering, Span, Tokens, Turn, paint
from burnish.data.template import ChatTemplateError, FollowedTemplate, TemplateRefusalError, Trace

__all__ = ["ChatRenderer", "ChatTemplateError", "Encoded", "Message", "Rendering", "Span", "Tools", "to_messages", "to_tools"]

_RESERVED = ("messages", "tools", "add_generation_prompt")


class ChatRenderer:
    """Renders and encodes chat rows with one tokenizer and one template; the tokenizer is copied, so change it before.

    `chat_template` overrides the tokenizer's. `stop_token_ids`: further tokens at which the model stops generating, such as those
    in its `generation_config.eos_token_id`. Errors: ChatTemplateError where there is no template or it does not compile.
    """

    def __init__(self, tokenizer: Any, chat_template: str | None = None, *, stop_token_ids: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = set(stop_token_ids) | ({tokenizer.eos_token_id} - {None})
        self._tokens = _tokens(tokenizer, self._stop_ids)
        self._special = dict(tokenizer.special_tokens_map)
        self._templates: dict[str, FollowedTemplate] = {}
        self._blindfolded: dict[str, Blindfolded] = {}
        self._in_parts: dict[str, bool] = {}
        self._text_arguments: set[str] = set()
        self._prompts: dict[tuple[str, str], str] = {}
        self._outlines: dict[tuple[str, ...], Outline | None] = {}
        self._seen_once: set[tuple[str, ...]] = set()
        self._encoder: SegmentEncoder | None = None
        try:
            self._sources = (tokenizer.get_chat_template(chat_template, None), tokenizer.get_chat_template(chat_template, []))
        except ValueError as error:
            name = type(tokenizer).__name__
            raise ChatTemplateError(f"The tokenizer ({name}) has no chat template; set one, or give chat_template.") from error
        self._template(self._source(None))

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
        outlined = None if tools or chat_template_kwargs or add_generation_prompt else self._outlined(messages)
        if outlined is not None:
            outline, contents = outlined
            return outline.fill(contents)
        return _rendering(*self._turns(to_messages(messages), to_tools(tools), chat_template_kwargs, add_generation_prompt))

    def text(
        self, messages: Sequence[Message], *, tools: Tools | None = None, chat_template_kwargs: Mapping[str, Any] | None = None
    ) -> str:
        """The text of `render`, for rows of which every token is trained: no span is looked for. Errors: as `render`, but for spans."""
        outlined = None if tools or chat_template_kwargs else self._outlined(messages)
        if outlined is not None:
            outline, contents = outlined
            return outline.text(contents)
        source, _, variables = self._given(to_tools(tools), chat_template_kwargs)
        read = self._read(source, to_messages(messages))
        if any("tool_calls" in message for message in read):
            return self._follow(source, read, variables, False)[1].text
        return self._template(source).text(read, variables)

    def prompt_text(
        self, messages: Sequence[Message], *, tools: Tools | None = None, chat_template_kwargs: Mapping[str, Any] | None = None
    ) -> str:
        """What the model is given to answer: the conversation and the generation prompt.

        Where the last message is the assistant's, the model is to continue it: the text ends with what that message says, before its
        end-of-turn token. Errors: as `render`, but for spans where no message is continued.
        """
        read = to_messages(messages)
        if read and read[-1].get("role") in ASSISTANT_ROLES:
            rendering = self.render(messages, tools=tools, chat_template_kwargs=chat_template_kwargs)
            end = max((span.end for span in rendering.spans if span.trained), default=len(rendering.text))
            return rendering.text[:end].removesuffix(rendering.end_of_turn or "")
        source, _, variables = self._given(to_tools(tools), chat_template_kwargs)
        said, trace = self._follow(source, self._read(source, read), variables, True)
        _check_calls(said, trace)
        return trace.text

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
        whole = _rendering(conversation, turns, since=cut)
        left = tuple(span._replace(end=min(span.end, cut), trained=False) for span in whole.spans if span.start < cut)
        right = tuple(span._replace(start=max(span.start, cut) - cut, end=span.end - cut) for span in whole.spans if span.end > cut)
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
        template = self._template(source)
        messages, trace = self._follow(source, self._read(source, messages), variables, prompt)
        _check_calls(messages, trace)
        return self._spoken(template, source, messages, trace, variables, given)

    def _spoken(
        self,
        template: FollowedTemplate,
        source: str,
        messages: list[dict[str, Any]],
        trace: Trace,
        variables: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> tuple[Conversation, list[Turn]]:
        constant = None if template.has_marks else self._constant_prompt(template, source, messages, variables, trace, given)
        conversation = Conversation(
            template=template, messages=messages, variables=variables, trace=trace, tokens=self._tokens, constant_prompt=constant
        )
        return conversation, conversation.marked_turns() if template.has_marks else conversation.turns()

    def _outlined(self, messages: Sequence[Message]) -> tuple[Outline, list[str]] | None:
        """The outline of conversations like this one and what fills it; None where it has to be rendered by itself."""
        found = contents_of(messages)
        if found is None:
            return None
        roles, contents = found
        if roles not in self._outlines:
            if roles not in self._seen_once:  # an outline costs more than a rendering
                self._seen_once.add(roles)
                return None
            self._outlines[roles] = self._outline(roles, messages, contents)
        outline = self._outlines[roles]
        return None if outline is None else (outline, contents)

    def _outline(self, roles: tuple[str, ...], messages: Sequence[Message], contents: Sequence[str]) -> Outline | None:
        """An outline that gives for `messages` what rendering them gives."""
        source, given, variables = self._given(None, None)
        if self._takes_parts(source):
            return None
        if source not in self._blindfolded:
            self._blindfolded[source] = Blindfolded(source)
        template = self._blindfolded[source]
        hidden = template.conversation(roles)
        try:
            conversation, turns = self._spoken(template, source, hidden, template.trace(hidden, variables), variables, given)
            outline = outline_of(_rendering(conversation, turns), turns, template)
            plainly = _rendering(*self._turns(list(map(dict, messages)), None, None, False))
        except ChatTemplateError:
            return None
        return outline if outline is not None and outline.fill(contents) == plainly else None

    def _given(self, tools: list[dict[str, Any]] | None, kwargs: Mapping[str, Any] | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """The template's text, a row's own arguments, and all that the template sees beside the messages."""
        source, given = self._source(tools), plain(kwargs or {})
        _check_read(self._template(source), given, tools)
        return source, given, {"documents": None, **self._special, **given, "tools": tools}

    def _read(self, source: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages as this template reads them."""
        if not messages:
            raise ChatTemplateError("The conversation has no message; give at least one.")
        return [in_parts(message) for message in messages] if self._takes_parts(source) else messages

    def _follow(
        self, source: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], prompt: bool
    ) -> tuple[list[dict[str, Any]], Trace]:
        template = self._template(source)
        calls = any("tool_calls" in message for message in messages)
        read = [with_arguments(message, as_text=source in self._text_arguments) for message in messages] if calls else messages
        try:
            return read, template.trace(read, variables, prompt=prompt)
        except TemplateRefusalError as refusal:
            if not calls or source in self._text_arguments or not isinstance(refusal.__cause__, TypeError):
                raise
            as_text = [with_arguments(message, as_text=True) for message in messages]
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
        """The template's text. A tokenizer may have another template for rows with tools."""
        return self._sources[tools is not None]

    def _template(self, source: str) -> FollowedTemplate:
        if source not in self._templates:
            self._templates[source] = FollowedTemplate(source)
        return self._templates[source]

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which know the outlines and need transformers only to compile a template."""
        return {**cast(dict[str, Any], super().__getstate__()), "_tokenizer": None, "_templates": {}, "_blindfolded": {}}

    def _takes_parts(self, source: str) -> bool:
        """Whether the template leaves out content that is a string, and writes it where it is a list of parts."""
        if source not in self._in_parts:
            probe = [{"role": role, "content": PROBE} for role in ("user", "assistant")]
            seen = []
            for messages in (probe, [in_parts(message) for message in probe]):
                try:
                    trace = self._template(source).trace(messages, {"documents": None, **self._special, "tools": None})
                    seen.append(trace.text.count(PROBE))
                except TemplateRefusalError:
                    seen.append(0)
            self._in_parts[source] = seen[0] < 2 <= seen[1]
        return self._in_parts[source]


def _rendering(conversation: Conversation, turns: Sequence[Turn], *, since: int = 0) -> Rendering:
    """`end_of_turn` and `departures` are of the turns that start at character `since` or later."""
    counted = [turn for turn in turns if turn.start >= since]
    return Rendering(
        text=conversation.trace.text,
        spans=paint(conversation.trace, conversation.messages, turns),
        end_of_turn=counted[-1].closed_by if counted else None,
        departures=len({turn.message for turn in counted if not turn.prompted}),
    )


def _check_read(template: FollowedTemplate, given: Mapping[str, Any], tools: Any) -> None:
    """What the template would ignore is refused."""
    for name in given:
        if name in _RESERVED:
            raise ChatTemplateError(f"chat_template_kwargs holds {name!r}, which has a place of its own; take it out.")
        if name not in template.mentions:
            raise ChatTemplateError(f"The chat template does not read {name!r} of chat_template_kwargs; take it out.")
    if tools and "tools" not in template.mentions:
        raise ChatTemplateError("The chat template does not read tools, so these would be lost; use one that does, or drop them.")


def _check_calls(messages: Sequence[Message], trace: Trace) -> None:
    """A template that knows no tool calls, or only one a message, leaves them out without a word."""
    for i, message in enumerate(messages):
        calls = message.get("tool_calls") or ()
        names = [call.get("function", call).get("name") for call in calls if isinstance(call, dict)]
        block = trace.text[slice(*trace.blocks.get(i, (0, None)))]
        lost = next((name for name in names if isinstance(name, str) and block.count(name) < names.count(name)), None)
        if lost is not None:
            raise ChatTemplateError(f"The chat template leaves out the call of {lost!r} in message {i}; use one that writes tool calls.")


def _tokens(tokenizer: Any, stop_ids: Iterable[int]) -> Tokens:
    added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    added |= dict.fromkeys(tokenizer.all_special_tokens, True)
    return Tokens(
        added=tuple(sorted(added, key=len, reverse=True)),
        special=frozenset(token for token, special in added.items() if special),
        stops=tuple(token for token in tokenizer.convert_ids_to_tokens(sorted(stop_ids)) if token is not None),
    )
