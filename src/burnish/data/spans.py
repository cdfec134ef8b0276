"""Where the model speaks: for each assistant message of a rendering, exactly the characters it generates.

For assistant message i the template wrote one block (`data/template.py`). It begins with what the model is *given* when its turn
comes, the generation prompt; then comes what it generates; then, perhaps, what follows the end-of-turn token.

- **Start.** `render(messages[:i], add_generation_prompt=True)` is what the model is given. Where that is a prefix of the rendering,
  the model's text starts at its end. A generation prompt that no row can change is rendered once, and the block begins with it.
  Where later messages rewrote this turn or earlier ones (thinking dropped from the history, say), a probe in its place tells what
  the template writes before an assistant's first word: the part of it that agrees with the generation prompt is not the model's
  (`<|im_start|>assistant\\n` of `<|im_start|>assistant\\n<think>\\n`), and the turn is counted as a departure.
- **End.** After the last character of the block that is not whitespace: its end-of-turn token. Where no special token closes the
  block, a stop token that follows it counts as the end of the turn, if the caller named one (GLM's `<|user|>`).
- A template may write tool results into the block of the call (Gemma 4 does). The model's part is then what the block is without
  any result, and the content where that stands behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from os.path import commonprefix
from typing import Any, NamedTuple

from burnish.data.messages import REASONING
from burnish.data.template import ChatTemplateError, FollowedTemplate, TemplateRefusalError, Trace
from burnish.types import Source

ASSISTANT_ROLES = frozenset({"assistant", "model", "chatbot", "bot"})
PROBE = "\U0010fffa"
_SOURCES: dict[str, Source] = {
    **dict.fromkeys(ASSISTANT_ROLES, "template"),  # what is not the model's in its block
    **dict.fromkeys(("tool", "ipython", "function", "observation"), "tool"),
}


class Span(NamedTuple):
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
    """The strings of a tokenizer's tokens that can end a turn."""

    added: tuple[str, ...]
    """Longest first."""
    special: frozenset[str]
    """Those of `added` that are special tokens."""
    stops: tuple[str, ...]
    """Further tokens at which the model stops generating, though the template writes them at the head of the next turn."""

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
        found: list[Turn] = []
        for i, message in enumerate(self.messages):
            if message["role"] in ASSISTANT_ROLES:
                block = self._block(i)
                if self.trace.text[slice(*block)].strip():
                    start, prompted = self._start(i, *block)
                    found += [
                        Turn(message=i, start=max(start, a), end=b, closed_by=closed_by, prompted=prompted)
                        for a, b, closed_by in self._parts(i, *block)
                        if b > start
                    ]
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
        if not self.template.takes_generation_prompt:
            header = self._lead(i).rstrip(" ")
            return (start + self._departure(i, (header,), text[start:end]) if header else start), True
        given = self._try(self.messages[:i], prompt=True)
        if given is not None and start < len(given.text) <= end and text.startswith(given.text):
            return len(given.text), True
        prompts = self._prompts(i, given)
        prompt = next(prompts)
        if prompt.strip():
            shared = self._departure(i, chain((prompt,), prompts), text[start:end])
            return start + shared, text.endswith(prompt, 0, start + shared)
        usual = next(prompts, "")
        headed = bool(usual) and text.startswith(usual, start)  # nothing is given for this turn, yet it may have a header
        return start + (len(usual) if headed else 0), not headed

    def _prompts(self, i: int, given: Trace | None) -> Iterator[str]:
        """What is written for the model's turn only: in this place, then after a question."""
        if self.constant_prompt is not None:
            yield self.constant_prompt
            return
        if given is not None:
            yield self._generation_prompt(self.messages[:i], given)
        question = [{"role": "user", "content": PROBE}]
        given = self._try(question, prompt=True)
        if given is None:
            raise ChatTemplateError(f"The chat template refuses what stands before message {i}, so its span is unknown; correct that.")
        yield self._generation_prompt(question, given)

    def _departure(self, i: int, prompts: Iterable[str], block: str) -> int:
        """How much of a block that does not continue what the model is given is a prompt's all the same, or a part of one."""
        lead = self._lead(i)
        if not lead.strip():
            return 0
        for prompt in prompts:
            at = lead.rfind(prompt)
            if at >= 0 and block.startswith(lead[: at + len(prompt)]):
                return at + len(prompt)
            if block.startswith(lead) and prompt.startswith(lead):
                return len(lead)
            if block.startswith(lead) and prompt.strip() == lead.strip():
                return len(lead.rstrip(" "))
            common = commonprefix([prompt, lead, block])
            lines = common[: common.rfind("\n") + 1]
            if lines.strip():
                return len(lines)
        raise ChatTemplateError(
            f"Message {i} is rendered as {block[:40]!r} though the model is given {prompt!r}, so where its own text starts is "
            "unknown; add {% generation %} marks to the chat template."
        )

    def _generation_prompt(self, before: Sequence[Mapping[str, Any]], given: Trace) -> str:
        without = self._try(before)
        common = len(given.text) if without is None else len(commonprefix([given.text, without.text]))
        return given.text[min(given.end or common, common) :]

    def _lead(self, i: int) -> str:
        """What the template writes in block i before the first word of its content, were that all of the message."""
        lead = self._before_content(i, {"role": self.messages[i]["role"]})
        if lead is None:
            raise ChatTemplateError(f"The chat template leaves out content in the place of message {i}, so its span is unknown.")
        return lead

    def _before_content(self, i: int, fields: Mapping[str, Any]) -> str | None:
        content = self.messages[i].get("content")
        word: Any = PROBE if content is None or isinstance(content, str) else [{"type": "text", "text": PROBE}]
        for later in (self.messages[i + 1 :], ()):
            probed = self._try([*self.messages[:i], {**fields, "content": word}, *later])
            at = -1 if probed is None else probed.text.find(PROBE)
            if probed is not None and at >= 0:
                start = probed.blocks[i][0] if i in probed.blocks else self._block(i)[0]
                return probed.text[start:at]
        return None

    def _parts(self, i: int, start: int, end: int) -> list[tuple[int, int, str | None]]:
        """The parts of the block that are not another's: (start, end, the added token that closes it)."""
        absent = self._absent_after(i) if i in self.trace.blocks else None
        parts = [(0, end - start)] if absent is None else self._around(i, self.trace.text[start:end], absent)
        return [(start + a, *self._close(start + a, start + b)) for a, b in parts]

    def _close(self, start: int, end: int) -> tuple[int, str | None]:
        text = self.trace.text
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

    def _around(self, i: int, block: str, absent: int) -> list[tuple[int, int]]:
        """The parts of a block that later messages wrote results into: before these, and the content if it stands behind them."""
        message = self.messages[i]
        content = self._before_content(i, message) if message.get("content") else None
        for dropped in ((), REASONING, ("content",), ("content", *REASONING)):
            variant = {key: value for key, value in message.items() if key not in dropped}
            alone = self._try([*self.messages[:i], variant])
            own = "" if alone is None or i not in alone.blocks else alone.text[slice(*alone.blocks[i])].rstrip()
            if own and block.startswith(own):
                if content is None or len(content) < len(own):
                    return [(0, len(own))]
                if block.startswith(content):
                    return [(0, len(own)), (len(content), len(block))]
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
