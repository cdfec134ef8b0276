"""Rows of preferences → a prompt and its branches, as token pieces.

Which tokens are trained, of each branch (`targets`, in `PrepareOptions`; never one of the prompt's):

    format                            completion                                              last
    pairs and labels as text          the completion, and its EOS                             that EOS
    pairs and labels of messages      the completion up to its last end-of-turn token,        that end-of-turn token
                                      or, with assistant_only_loss, the assistant's turns
    pairs of token ids                the completion                                          its last token
    stepwise                          the last token of each step, which is the separator's   –

A pair without a prompt of its own: of texts and token ids, the prompt is the longest common prefix of token ids; of conversations,
the messages that both begin with, and so the same as if they had been given as the prompt. A branch never is without a token. Where
only the last tokens are trained, the longest common prefix is the prompt in every format, as it is then all that can be shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from burnish.data.chat import ChatRenderer, ChatTemplateError, Rendering, Span
from burnish.data.formats import SCORES, Format, check_loss_options
from burnish.data.prepare_batch import count_tokens, cut_pieces
from burnish.data.prepare_report import Tally
from burnish.data.readers import (
    MODEL,
    PROMPT,
    STRADDLE_ROWS,
    Pieces,
    PrepareOptions,
    RowError,
    chat_arguments,
    check_vocabulary,
    conversation,
    encoder_with_eos,
    end,
    need_template,
)
from burnish.data.rows import DataError, Row
from burnish.data.store import Piece
from burnish.data.tokenise import TextEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A row as pieces."""

    prompt: list[Piece]
    branches: list[list[Piece]]
    labels: list[int] | None = None
    """One for each branch, 1 or 0."""
    step_labels: list[int] | None = None
    """One for each trained piece of the only branch, 1 or 0."""
    margin: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """A row's prompt and completions as they stand in it: texts, lists of messages, or token ids."""

    row: Row
    number: int
    prompt: Any
    """None where it is what the completions have in common."""
    completions: list[Any]
    labels: list[int] | None = None
    margin: float = math.nan


Encode = Callable[[Sequence[Sides], Tally], Iterator[list[Pieces]]]
"""For each row the (prompt, completion) of each of its branches; the prompts may differ, and are empty where there is none."""


class GroupReader:
    """Pairs and labelled completions."""

    def __init__(self, encode: Encode, fmt: Format, options: PrepareOptions) -> None:
        self._encode, self._format = encode, fmt
        self._unpair, self._last = options.unpair, options.targets == "last"

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Group | str]:
        """The group of each row, or the kind (a key of `KINDS`) as which it is dropped. `first` is the number of the first row."""
        given = [self._sides(row, number, tally) for number, row in enumerate(rows, first)]
        encoded = self._encode([one for one in given if isinstance(one, Sides)], tally)
        for one in given:
            yield self._group(one, next(encoded)) if isinstance(one, Sides) else one

    def _sides(self, row: Row, number: int, tally: Tally) -> Sides | str:
        fmt, labels = self._format, [1, 0] if self._unpair else None
        prompt = None if fmt.implicit else row["prompt_ids" if fmt.name == "preference_ids" else "prompt"]
        margin = row.get("margin") if "margin" in fmt.columns else None
        if fmt.name == "unpaired":
            completions, labels = [row["completion"]], [int(row["label"])]
        elif fmt.name in ("scored", "rated"):
            completions = _best_and_worst(row["completions"], row[fmt.columns[2]])
        else:
            completions = [row[column] for column in fmt.columns[:2]]
            if fmt.name == "preference" and row.get(SCORES[0]) is not None:
                completions = _best_and_worst(completions, [row[column] for column in SCORES])
        if not completions:
            return "dropped_tied"
        if fmt.name in ("preference", "preference_ids") and completions[0] is not row[fmt.columns[0]]:
            tally.add("swapped", number)
            margin = None if margin is None else abs(margin)
        if fmt.conversational:
            prompt, completions = _conversations(prompt, completions)
        if not all(map(_says_something, completions)):
            return "dropped_empty"
        return Sides(
            row=row,
            number=number,
            prompt=prompt,
            completions=completions,
            labels=labels,
            margin=math.nan if margin is None else margin,
        )

    def _group(self, one: Sides, parts: list[Pieces]) -> Group:
        if self._last or not any(ids.size for ids in map(ids_of, (prompt for prompt, _ in parts))):
            wholes = [[*prompt, *completion] for prompt, completion in parts]
            lengths = [count_tokens(whole) for whole in wholes]
            common = _common([ids_of(whole) for whole in wholes], max(0, min(lengths) - 1)) if len(parts) > 1 or self._last else 0
            prompt = cut_pieces(wholes[0], 0, common)
            branches = [cut_pieces(whole, common, length) for whole, length in zip(wholes, lengths, strict=True)]
        else:
            common = _common([ids_of(prompt) for prompt, _ in parts])
            prompt = cut_pieces(parts[0][0], 0, common)
            branches = [[*cut_pieces(prompt, common, count_tokens(prompt)), *completion] for prompt, completion in parts]
        if self._last:
            branches = [only_last(branch) for branch in branches]
        # what texts and token ids begin with is nobody's answer
        source = PROMPT if self._format.implicit and not self._format.conversational else None
        context: list[Piece] = [(ids, of if source is None else source, False) for ids, of, _ in prompt]
        return Group(prompt=context, branches=branches, labels=one.labels, margin=one.margin)


class TextGroups:
    """Texts, each encoded once; without a prompt of their own, as a whole."""

    def __init__(self, tokenizer: Any, options: PrepareOptions) -> None:
        self._texts, self._eos = encoder_with_eos(tokenizer, options), options.eos

    def __call__(self, given: Sequence[Sides], tally: Tally) -> Iterator[list[Pieces]]:
        explicit = [one for one in given if one.prompt is not None]
        prompts = self._texts.encode([one.prompt for one in explicit])
        completions = [text for one in given for text in one.completions]
        encoded = iter(self._texts.encode_continuations(completions) if explicit else self._texts.encode(completions))
        before = self._texts.prefix
        whole = self._wholes(explicit, tally)
        for i, one in enumerate(given):
            prompt: list[Piece] = [(before, PROMPT, False), (prompts[i], PROMPT, False)] if explicit else []
            ids = [next(encoded) for _ in one.completions]
            if i < len(whole) and not np.array_equal(whole[i], np.concatenate((prompts[i], ids[0]))):
                tally.add("straddled", one.number)
            ends = [end(completion, self._texts, self._eos) for completion in ids]
            if not explicit:
                ends = [np.concatenate((np.asarray(before, dtype=np.int32), completion)) for completion in ends]
            yield [(prompt, [(completion, MODEL, True)]) for completion in ends]

    def _wholes(self, given: Sequence[Sides], tally: Tally) -> list[np.ndarray]:
        """The first rows' prompts and first completions encoded as one, to see whether they would share a token."""
        looked_at = list(takewhile(lambda one: one.number < STRADDLE_ROWS, given))
        tally.counts["straddled_of"] += len(looked_at)
        return self._texts.encode([one.prompt + one.completions[0] for one in looked_at])


class ChatGroups:
    """Conversations, rendered once for each completion."""

    def __init__(self, tokenizer: Any, options: PrepareOptions) -> None:
        self._renderer = ChatRenderer(tokenizer, options.chat_template, stop_token_ids=options.stop_token_ids)
        self._assistant_only = options.assistant_only_loss

    def __call__(self, given: Sequence[Sides], tally: Tally) -> Iterator[list[Pieces]]:
        rendered = [self._render(one) for one in given]
        flat: list[Rendering] = []
        places = []
        for row in rendered:
            at = {}
            for rendering in (one for pair in row for one in pair):  # both branches have their prompt from one encoding
                if rendering.before or rendering.text not in at:
                    at[rendering.text if not rendering.before else id(rendering)] = len(flat)
                    flat.append(rendering)
            places.append([[at[id(one) if one.before else one.text] for one in pair] for pair in row])
        encoded = self._renderer.encode(flat)
        self._count(given, rendered, encoded.straddled, tally)
        for row_places in places:
            yield [(list(encoded.pieces[before]), list(encoded.pieces[after])) for before, after in row_places]

    def _render(self, one: Sides) -> list[tuple[Rendering, Rendering]]:
        nothing = Rendering(text="", spans=())
        arguments = chat_arguments(one.row)
        try:
            if not one.prompt:
                return [(nothing, self._until_end(self._renderer.render(turns, **arguments))) for turns in one.completions]
            pairs = [self._renderer.render_pair(one.prompt, turns, **arguments) for turns in one.completions]
        except ChatTemplateError as error:
            raise RowError(one.number, str(error)) from error
        return [(before, self._until_end(after)) for before, after in pairs]

    def _until_end(self, after: Rendering) -> Rendering:
        """Without what the template writes after the last end-of-turn token, a newline, say: it is not the model's."""
        stop = max((span.end for span in after.spans if span.trained), default=len(after.text))
        spans = tuple(span._replace(end=min(span.end, stop)) for span in after.spans if span.start < stop)
        if not self._assistant_only:
            spans = (Span(start=0, end=stop, source="model", trained=True),) if stop else ()
        return replace(after, text=after.text[:stop], spans=spans)

    def _count(self, given: Sequence[Sides], rendered: Sequence[Sequence[tuple[Any, Rendering]]], straddled: int, tally: Tally) -> None:
        """`straddled` says how many renderings straddled, not which: the first row of the batch stands for them."""
        tally.counts["straddled_of"] += len(given)
        if straddled:
            tally.add("straddled", given[0].number)
            tally.counts["straddled"] += min(straddled, len(given)) - 1
        for one, row in zip(given, rendered, strict=True):
            departures = sum(completion.departures for _, completion in row)
            if departures:
                tally.add("departures", one.number)
                tally.counts["departed_turns"] += departures


class TokenGroups:
    """Token ids, taken as they are. Errors: RowError for an id that the vocabulary lacks."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def __call__(self, given: Sequence[Sides], tally: Tally) -> Iterator[list[Pieces]]:
        for one in given:
            for ids in (one.prompt or [], *one.completions):
                check_vocabulary(ids, one.number, self._vocabulary)
            prompt: list[Piece] = [(np.asarray(one.prompt, dtype=np.int32), PROMPT, False)] if one.prompt else []
            yield [(prompt, [(np.asarray(ids, dtype=np.int32), MODEL, True)]) for ids in one.completions]


class StepReader:
    """`prompt`, the steps in `completions`, and whether each is right in `labels`: each step is followed by the separator."""

    def __init__(self, tokenizer: Any, options: PrepareOptions) -> None:
        self._texts = TextEncoder(tokenizer)
        self._separator = self._texts.encode_continuations([options.step_separator])[0]
        self._last_only = options.train_on_last_step_only

    def read(self, rows: Sequence[Row], first: int, tally: Tally) -> Iterator[Group | str]:
        """As `GroupReader.read`."""
        prompts = self._texts.encode([row["prompt"] for row in rows])
        steps = iter(self._texts.encode_continuations([step for row in rows for step in row["completions"]]))
        for row, prompt in zip(rows, prompts, strict=True):
            written = [np.concatenate((next(steps), self._separator)) for _ in row["completions"]]
            if not written or not all(map(len, written)):
                yield "dropped_empty"
                continue
            judged = [not self._last_only or i == len(written) - 1 for i in range(len(written))]
            branch: list[Piece] = []
            for ids, is_judged in zip(written, judged, strict=True):
                branch += [(ids[:-1], MODEL, False), (ids[-1:], MODEL, is_judged)]
            yield Group(
                prompt=[(self._texts.prefix, PROMPT, False), (prompt, PROMPT, False)],
                branches=[branch],
                step_labels=[int(label) for label, is_judged in zip(row["labels"], judged, strict=True) if is_judged],
            )


def group_reader_for(fmt: Format, tokenizer: Any, options: PrepareOptions) -> GroupReader | StepReader:
    """The reader of a format of preferences.

    Errors: DataError for an option that the format would ignore, no EOS where one is to be appended, no chat template.
    """
    check_loss_options(fmt, completion_only_loss=None, assistant_only_loss=options.assistant_only_loss)
    if options.completion_only_loss is not None:
        raise DataError(f"completion_only_loss has no meaning for rows that are {fmt}, whose prompts are never trained; leave it out.")
    if options.targets == "last" and options.assistant_only_loss:
        raise DataError("assistant_only_loss=True has no meaning where only a completion's last token is trained; leave it out.")
    if fmt.name == "stepwise":
        return StepReader(tokenizer, options)
    if fmt.name == "preference_ids":
        return GroupReader(TokenGroups(len(tokenizer)), fmt, options)
    if fmt.conversational:
        need_template(fmt, tokenizer, options)
        return GroupReader(ChatGroups(tokenizer, options), fmt, options)
    return GroupReader(TextGroups(tokenizer, options), fmt, options)


def only_last(branch: Sequence[Piece]) -> list[Piece]:
    """The branch with its last token trained and no other."""
    stop = count_tokens(branch)
    context, last = cut_pieces(branch, 0, stop - 1), cut_pieces(branch, stop - 1, stop)
    return [*((ids, source, False) for ids, source, _ in context), *((ids, source, True) for ids, source, _ in last)]


def ids_of(pieces: Sequence[Piece]) -> np.ndarray:
    """int32 token ids of the pieces, end to end."""
    return np.concatenate([np.empty(0, dtype=np.int32), *(np.asarray(ids, dtype=np.int32) for ids, _, _ in pieces)])


def _common(sequences: Sequence[np.ndarray], limit: int | None = None) -> int:
    """Length of the longest common prefix, at most `limit`."""
    shortest = min(map(len, sequences))
    for other in sequences[1:]:
        differ = np.flatnonzero(sequences[0][:shortest] != other[:shortest])
        shortest = int(differ[0]) if len(differ) else shortest
    return shortest if limit is None else min(shortest, limit)


def _best_and_worst(completions: Sequence[Any], scores: Sequence[float]) -> list[Any]:
    """The first of the best and the first of the worst; nothing where they have one score."""
    if not scores or max(scores) == min(scores):
        return []
    return [completions[scores.index(score)] for score in (max(scores), min(scores))]


def _conversations(prompt: Any, completions: Sequence[Any]) -> tuple[list[Row], list[list[Row]]]:
    """With the messages that all begin with as the prompt where there is none; each keeps at least one."""
    turns = [conversation(one) for one in completions]
    if prompt is not None:
        return conversation(prompt), turns
    aligned = zip(*(one[:-1] for one in turns), strict=False)
    shared = sum(1 for _ in takewhile(lambda messages: all(message == messages[0] for message in messages), aligned))
    return turns[0][:shared], [one[shared:] for one in turns]


def _says_something(completion: Any) -> bool:
    """Whether a completion has any text, call or token."""
    if isinstance(completion, list) and completion and isinstance(completion[0], dict):
        fields = ("content", "value", "tool_calls", "function_call", "reasoning_content", "thinking")
        return any(message.get(name) for message in completion for name in fields)
    return bool(completion)
