"""The tokens between two turns of the model: what ends its turn, what is said to it, and the next generation prompt.

What the model sampled stays as it is, and is never encoded again. What follows it is what the chat template writes after an assistant's
turn: of a made-up conversation with the same observations, all that comes after the made-up turn's end-of-turn token. That does not depend
on the turns before, as long as the template leaves those as they were; where it does not (it drops the reasoning of earlier turns, say),
there is nothing that could be appended: see `Between.keeps`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from burnish.data.chat import ChatRenderer, ChatTemplateError
from burnish.data.spans import Rendering, Span
from burnish.data.tokenise import TextEncoder
from burnish.types import Segment, Source

_NO_THOUGHT = re.compile(r"<think>\s*</think>\s*")
_ASKED = {"role": "user", "content": "?"}

Options = Mapping[str, Any]
"""`tools` and `chat_template_kwargs` of a row."""


class Between:
    """For one tokenizer. `stop_token_ids`: as in `ChatRenderer`."""

    def __init__(self, tokenizer: Any, stop_token_ids: Sequence[int] = ()) -> None:
        self._tokenizer, self._renderer = tokenizer, ChatRenderer(tokenizer, stop_token_ids=stop_token_ids)
        self._texts = TextEncoder(tokenizer)

    def after_turn(self, observations: Sequence[Mapping[str, Any]], options: Options, *, ended: bool) -> tuple[Segment, ...]:
        """What stands between a turn and the next, none of it trained: tokens of tools and environments, and of the template.

        `ended`: whether the turn ended with a stop token of its own; else the template's end-of-turn token is put first. Raises
        ChatTemplateError where the template has no place for these observations, or one of its tokens covers the end of the turn.
        """
        whole = self._made_up(observations, options)
        start, end = next((span.start, span.end) for span in reversed(whole.spans) if span.trained)
        if whole.end_of_turn is not None:  # marks of a template may take in what follows that token
            end = whole.text.rindex(whole.end_of_turn, start, end) + len(whole.end_of_turn) * ended
        spans = tuple(Span(max(one.start, end) - end, one.end - end, *_whose(one)) for one in whole.spans if one.end > end)
        encoded = self._renderer.encode([Rendering(text=whole.text[end:], spans=spans, before=whole.text[:end])])
        if encoded.straddled:
            raise ChatTemplateError("One token covers the end of the model's turn and what follows it, so turns cannot be appended.")
        return encoded.rows[0]

    def keeps(self, history: Sequence[Mapping[str, Any]], observations: Sequence[Mapping[str, Any]], options: Options) -> bool:
        """Whether the template writes `history`, whose last message is the model's, as before when observations follow it.

        An empty thought that it adds to a last turn, or no longer does, is no change. A template that refuses the conversation (a call
        that could not be read has no place in many) is taken at what it writes in the made-up one.
        """
        try:
            texts = [self._renderer.text(numbered(messages), **options) for messages in (history, [*history, *observations])]
        except ChatTemplateError:
            return True
        before, after = (_NO_THOUGHT.sub("", text) for text in texts)
        # some templates close a last turn, and no other, with the end of the text
        return after.startswith(before.rstrip().removesuffix(self._tokenizer.eos_token or "").rstrip())

    def context(self, messages: Sequence[Mapping[str, Any]], options: Options) -> np.ndarray:
        """int32 ids of a whole conversation with its generation prompt. Raises ChatTemplateError."""
        return self._texts.encode([self._renderer.prompt_text(numbered(messages), **options)])[0]

    def plain(self, text: str) -> tuple[Segment, ...]:
        """An observation in a rollout of plain text, which no template writes."""
        (ids,) = self._texts.encode_continuations([text])
        return (Segment(token_ids=ids, source="tool", trained=False),)

    def _made_up(self, observations: Sequence[Mapping[str, Any]], options: Options) -> Rendering:
        """A template may want a call for each result, or take no more than one."""
        asked = [_asking(one) for one in observations if one.get("role") == "tool"]
        refusal: ChatTemplateError | None = None
        for calls in (asked, asked[:1], []):
            turn = {"role": "assistant", "content": "", "tool_calls": calls} if calls else {"role": "assistant", "content": "."}
            try:
                return self._renderer.render(numbered([_ASKED, turn, *observations]), **options, add_generation_prompt=True)
            except ChatTemplateError as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal


def _asking(result: Mapping[str, Any]) -> dict[str, Any]:
    """The call that this answers, but for its arguments."""
    call = {"type": "function", "function": {"name": str(result.get("name", "tool")), "arguments": {}}}
    return {"id": result["tool_call_id"], **call} if "tool_call_id" in result else call


def numbered(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """With an id for each call and each result that has none, of nine characters, as some templates insist."""
    found, calls = list[dict[str, Any]](), list[str]()
    for message in messages:
        one = dict(message)
        if one.get("tool_calls"):
            one["tool_calls"] = [{"id": f"call{i:05d}", **call} for i, call in enumerate(one["tool_calls"])]
            calls = [call["id"] for call in one["tool_calls"]]
        elif one.get("role") == "tool":
            one = {"tool_call_id": calls.pop(0) if calls else "call00000", **one}
        found.append(one)
    return found


def _whose(span: Span) -> tuple[Source, bool]:
    """Whoever speaks between two turns, it is not the user of the prompt; nor is it learnt."""
    return "template" if span.source in ("template", "model") else "tool", False
