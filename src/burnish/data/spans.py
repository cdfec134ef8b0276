"""Where the model speaks: for each assistant message of a rendering, exactly the characters it generates.

For assistant message i the template wrote one block (`data/template.py`). It begins with what the model is *given* when its turn
comes, the generation prompt; then comes what it generates; then, perhaps, what follows the end-of-turn token.

- **Start.** `render(messages[:i], add_generation_prompt=True)` is what the model is given. Where that is a prefix of the rendering,
  the model's text starts at its end. A generation prompt that no row can change is rendered once, and the block begins with it.
  Where later messages rewrote this turn or earlier ones (thinking dropped from the history, say), the block still begins with the
  generation prompt or with a part of it (`<|im_start|>assistant\\n` of `<|im_start|>assistant\\n<think>\\n`): the model's text starts
  where block and prompt part, at the end of a line or of an added token.
- **End.** After the last character of the block that is not whitespace: its end-of-turn token. Where no special token closes the
  block, a stop token that follows it counts as the end of the turn, if the caller named one (GLM's `<|user|>`).
- A template may write tool results into the block of the call. The model's part is then the block as written before any result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from burnish.data.template import ChatTemplateError, FollowedTemplate, TemplateRefusalError, Trace
from burnish.types import Source

ASSISTANT_ROLES = frozenset({"assistant", "model", "chatbot"})
REASONING = ("reasoning_content", "thinking", "reasoning")
PROBE = "\U0010fffa"
_SOURCES: dict[str, Source] = {
    **dict.fromkeys(ASSISTANT_ROLES, "template"),  # what is not the model's in its block
    **dict.fromkeys(("tool", "ipython", "function", "observation"), "tool"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Characters `start:end` of a rendering. Spans are in order, not empty, and together cover the whole text."""

    start: int
    end: int
    source: Source
    """`model` for what an assistant turn generates, `tool` for a tool's result, `prompt` for the other turns and what stands before
    them, `template` for assistant headers and what follows an end-of-turn token."""
    trained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A conversation as text, or the later part of one. Not tokens: `data/encode.py` makes those."""

    text: str
    spans: tuple[Span, ...]
    end_of_turn: str | None = None
    """The token that closes the last model span, such as `<|im_end|>`; None where no added token does (or nothing is generated)."""
    departures: int = 0
    """Assistant turns rendered otherwise than the generation prompt begins them, thinking dropped from the history, say:
    when it spoke, the model was given another text than it is trained on."""
    before: str = ""
    """The end of the text that this one continues; empty where it stands alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the model generates for one message: characters `start:end`."""

    message: int
    start: int
    end: int
    closed_by: str | None
    """The added token at its end."""
    prompted: bool = True
    """False where the rendering departs from the generation prompt, so that the model was given something else when it spoke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The strings of a tokenizer's tokens that say where a turn ends and where a generation prompt may be cut."""

    added: tuple[str, ...]
    """Longest first."""
    special: frozenset[str]
    """Those of `added` that are special tokens."""
    stops: tuple[str, ...]
    """Further tokens at which the model stops generating, though the template writes them at the head of the next turn."""
    cuts: re.Pattern[str]
    """Matches a line end or an added token."""

    def closing(self, text: str) -> str | None:
        if not text.endswith(self.added):
            return None
        return next(token for token in self.added if text.endswith(token))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One rendering, with all that is needed to render parts of it again."""

    template: FollowedTemplate
    messages: Sequence[Mapping[str, Any]]
    variables: Mapping[str, Any]
    trace: Trace
    tokens: Tokens
    constant_prompt: str | None
    """The generation prompt, where no row can change it."""

    def turns(self) -> list[Turn]:
        """In order. An assistant message that the template leaves out has none. Errors: ChatTemplateError, naming the message."""
        found = []
        for i, message in enumerate(self.messages):
            if message["role"] in ASSISTANT_ROLES:
                block = self._block(i)
                if not self.trace.text[slice(*block)].strip():
                    continue
                start, prompted = self._start(i, *block)
                end, closed_by = self._end(i, *block)
                if end > start:
                    found.append(Turn(message=i, start=start, end=end, closed_by=closed_by, prompted=prompted))
        return found

    def marked_turns(self) -> list[Turn]:
        """The characters inside `{% generation %}` blocks."""
        text, blocks = self.trace.text, self.trace.blocks.items()
        turns = []
        for start, end in self.trace.marked:
            i = next((i for i, (a, b) in blocks if a <= start < b), -1)
            turns.append(Turn(message=i, start=start, end=end, closed_by=self.tokens.closing(text[start:end].rstrip())))
        return turns

    def _block(self, i: int) -> tuple[int, int]:
        if i in self.trace.torn:
            raise ChatTemplateError(f"The chat template writes message {i} in several places, so it has no span; use another template.")
        block = self.trace.blocks.get(i)
        if block is not None:
            return block
        before, after = self._try(self.messages[:i]), self._try(self.messages[: i + 1])
        if before is None or after is None or not (self.trace.text.startswith(after.text) and after.text.startswith(before.text)):
            raise ChatTemplateError(
                f"The chat template writes message {i} in no loop over messages and changes it for later ones, so its span is unknown; "
                "add {% generation %} marks to it."
            )
        return len(before.text), len(after.text)

    def _start(self, i: int, start: int, end: int) -> tuple[int, bool]:
        text = self.trace.text
        if self.constant_prompt is not None and text.startswith(self.constant_prompt, start):
            return start + len(self.constant_prompt), True
        if self.template.takes_generation_prompt:
            given = self._try(self.messages[:i], prompt=True)
            if given is not None and len(given.text) <= end and text.startswith(given.text):
                return max(start, len(given.text)), True
            prompt = self._generation_prompt(i, given)
        else:
            prompt = self._lead(i).rstrip(" ")
        if not prompt.strip():
            return start, True
        shared = self._shared(prompt, text[start:end])
        if shared:
            return start + shared, shared == len(prompt)
        lead = self._lead(i)
        at = lead.rfind(prompt)
        if not lead.strip() or (at >= 0 and text.startswith(lead, start)):
            return start + (at + len(prompt) if at >= 0 else 0), at >= 0
        raise ChatTemplateError(
            f"Message {i} is rendered as {text[start : min(end, start + 40)]!r} though the model is given {prompt!r}, "
            "so where its own text starts is unknown; add {% generation %} marks to the chat template."
        )

    def _shared(self, prompt: str, block: str) -> int:
        """The length of the longest part of the prompt, cut after a line or an added token, with which the block begins."""
        common = commonprefix([prompt, block])
        cuts = [m.end() for m in self.tokens.cuts.finditer(prompt) if m.end() <= len(common)]
        shared = len(prompt) if common == prompt else max(cuts, default=0)
        return shared if prompt[:shared].strip() else 0

    def _generation_prompt(self, i: int, given: Trace | None) -> str:
        """What is written for the model's turn only. Where messages[:i] alone is refused, a user's question stands in for it."""
        before: Sequence[Mapping[str, Any]] = self.messages[:i]
        if given is None:
            before = [{"role": "user", "content": PROBE}]
            given = self._try(before, prompt=True)
        if given is None:
            raise ChatTemplateError(f"The chat template refuses what stands before message {i}, so its span is unknown; correct that.")
        without = self._try(before)
        common = len(given.text) if without is None else len(commonprefix([given.text, without.text]))
        return given.text[min(given.end or common, common) :]

    def _lead(self, i: int) -> str:
        """What the template writes in this place before the first word of an assistant message."""
        content = self.messages[i].get("content")
        word: Any = PROBE if content is None or isinstance(content, str) else [{"type": "text", "text": PROBE}]
        probed = self._try([*self.messages[:i], {"role": self.messages[i]["role"], "content": word}])
        at = -1 if probed is None else probed.text.rfind(PROBE)
        if probed is None or at < 0:
            raise ChatTemplateError(f"The chat template leaves out content in the place of message {i}, so its span is unknown.")
        start = probed.blocks[i][0] if i in probed.blocks else self._block(i)[0]
        return probed.text[start:at]

    def _end(self, i: int, start: int, end: int) -> tuple[int, str | None]:
        text = self.trace.text
        absent = self._absent_after(i)
        if absent is not None:
            end = start + self._own_length(i, text[start:end], absent)
        stripped = text[start:end].rstrip()
        closed_by = self.tokens.closing(stripped)
        if closed_by not in self.tokens.special:
            stop = next((stop for stop in self.tokens.stops if text.startswith(stop, end)), None)
            if stop is not None:
                return end + len(stop), stop
        return start + len(stripped), closed_by

    def _absent_after(self, i: int) -> int | None:
        """The first message after i, before the next assistant's, that has content but no text of its own: it may stand in block i."""
        for j in range(i + 1, len(self.messages)):
            if self.messages[j]["role"] in ASSISTANT_ROLES:
                return None
            if self.messages[j].get("content") and not self.trace.text[slice(*self.trace.blocks.get(j, (0, 0)))].strip():
                return j
        return None

    def _own_length(self, i: int, block: str, absent: int) -> int:
        message = self.messages[i]
        without_thinking = {key: value for key, value in message.items() if key not in REASONING}
        for variant in (message, without_thinking):
            alone = self._try([*self.messages[:i], variant])
            if alone is not None and i in alone.blocks:
                own = alone.text[slice(*alone.blocks[i])]
                if block.startswith(own.rstrip()):
                    return len(own.rstrip())
        raise ChatTemplateError(
            f"The chat template mixes the text of message {absent} into that of message {i}, so what the model generates is unknown; "
            "add {% generation %} marks to the chat template."
        )

    def _try(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool = False) -> Trace | None:
        try:
            return self.template.trace(messages, self.variables, prompt=prompt)
        except TemplateRefusalError:
            return None


def paint(trace: Trace, messages: Sequence[Mapping[str, Any]], turns: Sequence[Turn]) -> tuple[Span, ...]:
    """The whole text in spans: each turn as `model` and trained, the rest by whose block it is."""
    own: dict[int, list[Turn]] = {}
    for turn in turns:
        own.setdefault(turn.message if turn.message in trace.blocks else -1, []).append(turn)
    changes: list[tuple[int, Source]] = [(0, "prompt")]
    reached = 0
    for start, i, end in sorted((start, i, end) for i, (start, end) in trace.blocks.items() if end > start):
        changes.append((max(start, reached), _SOURCES.get(messages[i]["role"], "prompt")))
        for turn in own.get(i, ()):
            changes += [(turn.start, "model"), (turn.end, "tool" if trace.text[turn.end : end].strip() else "template")]
            reached = turn.end
        reached = max(reached, end)
        changes.append((reached, "template"))
    for turn in own.get(-1, ()):
        changes += [(turn.start, "model"), (turn.end, "template")]
    return _merge(sorted(changes, key=lambda change: change[0]), len(trace.text))


def _merge(changes: list[tuple[int, Source]], length: int) -> tuple[Span, ...]:
    spans: list[tuple[int, Source]] = []
    for (start, source), end in zip(changes, [*(start for start, _ in changes[1:]), length], strict=True):
        if end > start and (not spans or spans[-1][1] != source):
            spans.append((start, source))
    ends = [*(start for start, _ in spans[1:]), length]
    return tuple(
        Span(start=start, end=end, source=source, trained=source == "model") for (start, source), end in zip(spans, ends, strict=True)
    )
