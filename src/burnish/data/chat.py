"""Chat rows → text with exact assistant spans → token segments, for any chat template, with or without `{% generation %}` marks.

    renderer = ChatRenderer(tokenizer)                                # compiles the template once; keep it for all rows
    rendering = renderer.render(messages, tools=tools)                # Rendering(text, spans, …)
    prompt, completion = renderer.render_pair(prompt, completion)     # conversational prompt/completion rows
    encoded = renderer.encode([rendering, …])                         # one batch call of the tokenizer
    encoded.rows[0]  → (Segment(token_ids=…, source="prompt", trained=False), Segment(…, source="model", trained=True), …)

The mask covers what the model generates in each assistant turn (thinking, content, tool calls, the end-of-turn token) and nothing
else: no header, no whitespace after the end-of-turn token, no word of anyone else. Where the template has marks, the marks decide.
Spans that cannot be established exactly are a `ChatTemplateError`, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.types import Segment, Source

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any] | Callable[..., Any]] | str


class ChatTemplateError(ValueError):
    """The template cannot render this conversation, or its assistant spans cannot be established. One sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Characters `start:end` of a rendering. Spans are in order, not empty, and together cover the whole text."""

    start: int
    end: int
    source: Source
    """"model" for what an assistant turn generates, "tool" for a tool result, "prompt" for the other turns, "template" for headers and the like."""
    trained: bool
    """True exactly where `source` is "model"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A conversation as text. Not tokens: `ChatRenderer.encode` makes those."""

    text: str
    spans: tuple[Span, ...]
    end_of_turn: str | None
    """The token that closes the last trained turn, such as `<|im_end|>`; None where the template closes it with none (or nothing is trained)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Token segments of a batch of renderings, row for row."""

    rows: tuple[tuple[Segment, ...], ...]
    straddled: int
    """Rows in which a token would have covered both trained and other text, and which were therefore encoded in pieces."""


def to_messages(turns: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`messages` (role/content) and `conversations` (from/value) turns as role/content messages, without None fields.

    Errors: ChatTemplateError for a turn that has neither a role nor a from, or an unknown from.
    """
    raise NotImplementedError


def to_tools(tools: Tools | None) -> list[dict[str, Any]] | None:
    """Tool definitions as JSON schemas, from a list of dicts or Python callables, or from a JSON string of such a list; None where empty."""
    raise NotImplementedError


class ChatRenderer:
    """Renders and encodes chat rows with one tokenizer and one template. Picklable by its arguments: workers build their own.

    `chat_template` overrides the tokenizer's. Errors: ChatTemplateError where there is no template or it does not compile.
    """

    def __init__(self, tokenizer: Any, chat_template: str | None = None) -> None:
        raise NotImplementedError

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> Rendering:
        """The conversation as text with its spans. `messages` in either spelling (see `to_messages`); the caller's objects are not changed.

        Errors: ChatTemplateError, naming the message, where the template refuses the conversation or a span cannot be established exactly.
        """
        raise NotImplementedError

    def render_pair(
        self,
        prompt: Sequence[Message],
        completion: Sequence[Message],
        *,
        tools: Tools | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[Rendering, Rendering]:
        """(prompt with its generation prompt, the rest of the whole conversation). The two texts concatenate to the whole rendering.

        The prompt's spans are never trained. Errors: as `render`, and where the prompt's rendering is not a prefix of the whole.
        """
        raise NotImplementedError

    def encode(self, renderings: Sequence[Rendering]) -> Encoded:
        """Token segments of each rendering. No special tokens are added: the template has written them.

        Ids equal `tokenizer.apply_chat_template(..., tokenize=True)` in every row that is not counted in `straddled`.
        """
        raise NotImplementedError

    def end_of_turn_problem(self, rendering: Rendering, stop_token_ids: Iterable[int] = ()) -> str | None:
        """One sentence where the last trained turn does not end in the tokenizer's EOS or one of `stop_token_ids`; None where all is well."""
        raise NotImplementedError
