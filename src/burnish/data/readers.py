"""Rows of each format → token pieces: what is prompt, what is completion, and which tokens are trained.

Which tokens are trained has the meaning that TRL's users know:

    format                              completion_only_loss   assistant_only_loss   trained
    text                                –                      –                     every token
    messages, conversations             –                      no                    every token
                                        –                      yes                   the assistant's turns
    prompt + completion                 yes (the default)      no                    the completion, and its EOS
                                        no                     no                    every token
    prompt + completion of messages     yes (the default)      yes                   the assistant's turns in the completion
                                        no                     yes                   the assistant's turns in both
    input_ids                           as `labels` or `completion_mask` and `assistant_masks` say, else every token
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from burnish.data.chat import ChatRenderer, ChatTemplateError, Rendering, Span
from burnish.data.formats import SFT_FORMATS, Format, check_loss_options
from burnish.data.prepare_report import Tally
from burnish.data.rows import DataError, Row
from burnish.data.store import Piece
from burnish.data.tokenise import TextEncoder
from burnish.types import SOURCES

PROMPT, MODEL, TEMPLATE = SOURCES.index("prompt"), SOURCES.index("model"), SOURCES.index("template")
STRADDLE_ROWS = 1000
"""Rows of text whose prompt and completion are also encoded as one, to see whether they would share a token."""

Pieces = tuple[list[Piece], list[Piece]]
"""(prompt, the one branch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """How rows become examples.

    Errors: DataError for a value out of range.
    """

    format: Format | None = None
    """As `check_rows` found it; None: found again."""
    accepted: tuple[str, ...] = SFT_FORMATS
    """The formats among which it is found."""
    text_field: str = "text"
    max_length: int | None = None
    truncation_mode: Literal["error", "drop", "keep_start", "keep_end"] = "drop"
    """What becomes of rows longer than `max_length`."""
    completion_only_loss: bool | None = None
    """None: where rows have a prompt and a completion, or a completion_mask."""
    assistant_only_loss: bool = False
    eos: bool = True
    """End text and completions with the tokenizer's EOS where they do not already; conversations end as their template says."""
    chat_template: str | None = None
    """Instead of the tokenizer's."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens beside EOS at which the model stops generating: they end a turn where the template writes them (see `ChatRenderer`)."""
    formatting_func: Callable[[Row], Any] | None = None
    """Row → text, list of messages, or a row of any format."""
    targets: Literal["completion", "last"] = "completion"
    """Of preferences: what is trained of a completion. ``"last"``: its last token alone, at which a reward model is read."""
    unpair: bool = False
    """Give the two completions of a pair the labels true and false (KTO)."""
    step_separator: str = "\n"
    """Of stepwise rows: what ends each step."""
    train_on_last_step_only: bool = False
    """Of stepwise rows: give only the last step its label."""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 2:
            raise DataError(f"max_length={self.max_length} leaves no token to predict from another; give at least 2.")
        if self.truncation_mode not in ("error", "drop", "keep_start", "keep_end"):
            raise DataError(f"truncation_mode={self.truncation_mode!r} is none of error, drop, keep_start and keep_end.")


class RowError(DataError):
    """A `DataError` about row number `row`, which a worker cannot name."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(row, message)
        self.row, self.message = row, message


class Reader(Protocol):
    """Rows of one format to pieces."""

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Pieces | None]:
        """The pieces of each row; None for an empty one. `first` is the number of the first row."""
        ...


class TextReader:
    """`text`: the tokenizer's special tokens, the text, EOS."""

    def __init__(self, texts: TextEncoder, column: str, *, eos: bool) -> None:
        self._texts, self._column, self._eos = texts, column, eos

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Pieces | None]:
        for ids in self._texts.encode([row[self._column] for row in rows]):
            yield ([], [(self._texts.prefix, TEMPLATE, True), (end(ids, self._texts, self._eos), MODEL, True)]) if len(ids) else None


class PairReader:
    """`prompt` + `completion` as text, each encoded once: their boundary is where it is at inference."""

    def __init__(self, texts: TextEncoder, *, train_prompt: bool, eos: bool) -> None:
        self._texts, self._train_prompt, self._eos = texts, train_prompt, eos

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Pieces]:
        prompts = self._texts.encode([row["prompt"] for row in rows])
        completions = self._texts.encode_continuations([row["completion"] for row in rows])
        looked_at = max(0, min(len(rows), STRADDLE_ROWS - first))
        whole = self._texts.encode([row["prompt"] + row["completion"] for row in rows[:looked_at]])
        tally.counts["straddled_of"] += looked_at
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            if i < looked_at and not np.array_equal(whole[i], np.concatenate((prompt, completion))):
                tally.add("straddled", first + i)
            head: list[Piece] = [(self._texts.prefix, PROMPT, self._train_prompt), (prompt, PROMPT, self._train_prompt)]
            yield head, [(end(completion, self._texts, self._eos), MODEL, True)]


def end(ids: np.ndarray, texts: TextEncoder, eos: bool) -> np.ndarray:
    """`ids` with EOS at their end, never twice."""
    ends = not eos or (len(ids) and ids[-1] == texts.eos_id)
    return ids if ends else np.concatenate((ids, np.asarray([texts.eos_id], dtype=np.int32)))


class ChatReader:
    """Conversations, or `prompt` + `completion` of messages read as one conversation."""

    def __init__(self, tokenizer: Any, options: PrepareOptions, fmt: Format) -> None:
        self._columns = [name for name in fmt.columns if name in ("messages", "conversations", "prompt", "completion")]
        self._renderer = ChatRenderer(tokenizer, options.chat_template, stop_token_ids=options.stop_token_ids)
        self._texts = None if options.assistant_only_loss else TextEncoder(tokenizer)

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Pieces]:
        if self._texts:  # every token is trained: nothing has to be known of the turns
            texts = render_each(rows, first, lambda row: self._renderer.text(self._conversation(row), **chat_arguments(row)))
            for ids in self._texts.encode(texts):
                yield [], [(ids, TEMPLATE, True)]
            return
        renderings = render_each(rows, first, lambda row: self._renderer.render(self._conversation(row), **chat_arguments(row)))
        encoded = self._renderer.encode(renderings)
        count_straddled(tally, encoded.straddled, len(rows), first)
        count_departures(tally, renderings, first)
        for pieces in encoded.pieces:
            yield [], list(pieces)

    def _conversation(self, row: Row) -> list[Row]:
        return [message for column in self._columns for message in conversation(row[column])]


class ChatPairReader:
    """`prompt` + `completion` of messages, with the prompt as context: its generation prompt included, never trained."""

    def __init__(self, tokenizer: Any, options: PrepareOptions) -> None:
        self._renderer = ChatRenderer(tokenizer, options.chat_template, stop_token_ids=options.stop_token_ids)
        self._assistant_only = options.assistant_only_loss

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Pieces]:
        pairs = render_each(rows, first, self._render)
        encoded = self._renderer.encode([rendering for pair in pairs for rendering in pair])
        count_straddled(tally, encoded.straddled, len(rows), first)
        count_departures(tally, [completion for _, completion in pairs], first)
        for prompt, completion in zip(encoded.pieces[::2], encoded.pieces[1::2], strict=True):
            yield list(prompt), list(completion)

    def _render(self, row: Row) -> tuple[Rendering, Rendering]:
        prompt, completion = (conversation(row[name]) for name in ("prompt", "completion"))
        before, after = self._renderer.render_pair(prompt, completion, **chat_arguments(row))
        if self._assistant_only:
            return before, after
        whole = Span(start=0, end=len(after.text), source="model", trained=True)
        return before, replace(after, spans=(whole,) if after.text else ())


class TokenReader:
    """`input_ids`, taken as they are. Errors: RowError for an id that the vocabulary lacks."""

    def __init__(self, *, use_completion_mask: bool, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._masks = ["completion_mask", "assistant_masks"] if use_completion_mask else ["assistant_masks"]

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Pieces | None]:
        for i, row in enumerate(rows, first):
            check_vocabulary(row["input_ids"], i, self._vocabulary)
            yield self._pieces(row) if row["input_ids"] else None

    def _pieces(self, row: Row) -> Pieces:
        ids = np.asarray(row["input_ids"], dtype=np.int32)
        trained = np.ones(len(ids), dtype=bool)
        if row.get("labels") is not None:
            trained = np.asarray(row["labels"]) != -100
        for mask in self._masks:
            if row.get(mask) is not None:
                trained &= np.asarray(row[mask]) != 0
        edges = [0, *(np.flatnonzero(np.diff(trained)) + 1), len(ids)]
        runs = zip(edges, edges[1:], strict=False)
        return [], [(ids[a:b], MODEL if trained[a] else PROMPT, bool(trained[a])) for a, b in runs]


def check_vocabulary(ids: Sequence[int], row: int, vocabulary: int) -> None:
    """Errors: RowError for an id that the vocabulary lacks."""
    if (largest := max(ids, default=0)) >= vocabulary:
        said = f"token id {largest:,} is not among the tokenizer's {vocabulary:,}"
        raise RowError(row, f"{said}; encode the rows with the model's own tokenizer.")


def reader_for(fmt: Format, tokenizer: Any, options: PrepareOptions) -> Reader:
    """The reader of a format under `options`.

    Errors: DataError for an option that the format would ignore, no EOS where one is to be appended, no chat template.
    """
    completion_only = options.completion_only_loss
    check_loss_options(fmt, completion_only_loss=completion_only, assistant_only_loss=options.assistant_only_loss)
    if fmt.name == "input_ids":
        return TokenReader(use_completion_mask=completion_only is not False, vocabulary=len(tokenizer))
    if fmt.conversational:
        need_template(fmt, tokenizer, options)
        if fmt.name == "prompt_completion" and completion_only is not False:
            return ChatPairReader(tokenizer, options)
        return ChatReader(tokenizer, options, fmt)
    texts = encoder_with_eos(tokenizer, options)
    if fmt.name == "text":
        return TextReader(texts, fmt.columns[0], eos=options.eos)
    return PairReader(texts, train_prompt=completion_only is False, eos=options.eos)


def need_template(fmt: Format, tokenizer: Any, options: PrepareOptions) -> None:
    """Errors: DataError where there is no chat template."""
    if not (options.chat_template or tokenizer.chat_template):
        raise DataError(
            f"The rows are {fmt}, and the tokenizer has no chat template to write them with; "
            "give one with chat_template_path (a .jinja file, or a tokenizer that has one)."
        )


def encoder_with_eos(tokenizer: Any, options: PrepareOptions) -> TextEncoder:
    """Errors: DataError where there is no EOS to end texts with."""
    texts = TextEncoder(tokenizer)
    if options.eos and texts.eos_id is None:
        raise DataError("The tokenizer has no EOS token, so a model would never learn to stop; name one with eos_token.")
    return texts


def render_each(rows: Sequence[Row], first: int, render: Callable[[Row], Any]) -> list[Any]:
    """`render` of each row; what the template refuses is a `RowError`."""
    rendered = []
    for i, row in enumerate(rows):
        try:
            rendered.append(render(row))
        except ChatTemplateError as error:
            raise RowError(first + i, str(error)) from error
    return rendered


def count_straddled(tally: Tally, straddled: int, rows: int, first: int) -> None:
    """`Encoded` says how many rows straddled, not which: the first of the batch stands for them."""
    tally.counts["straddled_of"] += rows
    if straddled:
        tally.add("straddled", first)
        tally.counts["straddled"] += straddled - 1


def count_departures(tally: Tally, renderings: Sequence[Rendering], first: int) -> None:
    """Rows with turns before which the model was given another text than it is trained on, and these turns."""
    for row, rendering in enumerate(renderings, first):
        if rendering.departures:
            tally.add("departures", row)
            tally.counts["departed_turns"] += rendering.departures


def conversation(turns: Sequence[Row]) -> list[Row]:
    """Turns in either spelling, with content in parts put together."""
    return [_whole(turn) for turn in turns]


def _whole(turn: Row) -> Row:
    key = "content" if "content" in turn else "value"
    content = turn.get(key)
    return turn | {key: "".join(part["text"] for part in content)} if isinstance(content, list) else turn


def chat_arguments(row: Row) -> dict[str, Any]:
    """A row's own `tools` and `chat_template_kwargs`."""
    return {"tools": row.get("tools"), "chat_template_kwargs": row.get("chat_template_kwargs")}
