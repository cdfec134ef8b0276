"""Examples as coloured tokens, lengths as a histogram: what `burnish inspect` and the preflight show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from burnish.types import Example, Segment

if TYPE_CHECKING:
    import rich.console

Decode = Callable[[list[int]], str]

STYLES = {
    "trained": "bold black on green",
    "right": "bold black on green",
    "wrong": "bold black on red",
    "context": "cyan",
    "template": "bright_black",
    "left out": "italic yellow",
}
"""A token is `trained` (where a step's label is taught, `right` or `wrong`); else `template` where the chat template wrote it; else
`context`."""
MARKS = {"trained": "", "right": "✓", "wrong": "✗"}
"""What stands behind a trained run."""


@runtime_checkable
class Decoder(Protocol):
    """A tokenizer, as far as it is needed here."""

    def decode(self, token_ids: list[int]) -> str: ...


def show_example(example: Example, decode: Decode | Decoder, console: rich.console.Console, *, max_tokens: int | None = None) -> None:
    """Print an example with trained, context and template tokens told apart, and a legend.

    Of several branches, or of one with a label, the prompt that they share is printed once and then each branch with what it is:
    chosen or rejected, true or false. `decode` is a tokenizer or a function from token ids to text. Newlines are shown as ⏎, other
    control characters as ``\\x1b``. Where there are no colours trained runs stand between ⟦ and ⟧; a step's label is shown behind it,
    as ✓ or ✗. With `max_tokens` the middle of the prompt and of each branch is left out, and the output says how much.
    """
    from rich.text import Text

    to_text = decode.decode if isinstance(decode, Decoder) else decode
    plain = console.no_color or console.color_system is None

    def show(segments: Sequence[Segment], before: Sequence[Segment] = ()) -> None:
        line = Text()
        for kind, text in _runs(segments, to_text, max_tokens, before):
            line.append(f"⟦{text}⟧" if plain and kind in MARKS else text, style=None if plain else STYLES[kind])
            line.append(MARKS.get(kind, ""))
        console.print(line, soft_wrap=True)

    total, trained = len(example), example.trained_tokens
    margin = "" if example.margin is None else f", margin {example.margin:g}"
    said = f"{example.group_id}: {total:,} tokens, {trained:,} trained ({trained / max(total, 1):.0%}){margin}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    legend = Text("⟦trained⟧ context and template" if plain else "")
    if not plain:
        legend = Text("  ").join(Text(name, style=STYLES[name]) for name in ("trained", "context", "template"))
    console.print(legend)
    if len(example.branches) == 1 and example.branches[0].label is None:
        show([*example.prompt, *example.branches[0].segments])
        return
    shared = "prompt" if len(example.branches) == 1 else "prompt of all"
    console.print(f"{shared}, {_tokens(sum(map(len, example.prompt)))}", highlight=False)
    show(example.prompt)
    for name, branch in zip(branch_names(example), example.branches, strict=True):
        console.print(f"{name}, {_tokens(len(branch))}", highlight=False)
        show(branch.segments, example.prompt)


def branch_names(example: Example) -> list[str]:
    """What each branch is: chosen and rejected, or its label, or its number."""
    labels = [branch.label for branch in example.branches]
    if any(label is not None for label in labels):
        return [{True: "label true", False: "label false", None: "of another prompt"}[label] for label in labels]
    if len(labels) == 2 and all(branch.advantage is None for branch in example.branches):
        return ["chosen", "rejected"]
    return [f"branch {number} of {len(labels)}" for number in range(1, len(labels) + 1)]


def length_histogram(lengths: Sequence[int], max_length: int | None, width: int = 60) -> str:
    """Lengths in tokens as horizontal bars with counts; what lies over `max_length` is in a bin of its own.

    ::

          0–49   ████▌ 3
         50–99   ████████████ 8
        over 100 █▌ 1
        12 rows: shortest 7, median 61, longest 140 tokens
    """
    if not len(lengths):
        return "no rows"
    ordered = sorted(lengths)
    within = [length for length in ordered if max_length is None or length <= max_length]
    first, end = (within[0], within[-1] + 1) if within else (0, 0)
    size = _bin_size(max(1, end - first))
    bins: dict[str, int] = {}
    for start in range(first // size * size, end, size):
        end = start + size - 1 if max_length is None else min(start + size - 1, max_length)
        bins[f"{start:,}–{end:,}"] = sum(start <= length <= end for length in within)
    if len(within) < len(ordered):
        bins[f"over {max_length:,}"] = len(ordered) - len(within)
    label = max(map(len, bins))
    scale = width / max(bins.values())
    lines = [f"{name:>{label}} {_bar(count * scale)} {count:,}" for name, count in bins.items()]
    summary = f"shortest {ordered[0]:,}, median {ordered[len(ordered) // 2]:,}, longest {ordered[-1]:,} tokens"
    return "\n".join([*lines, f"{len(ordered):,} row{'s' * (len(ordered) != 1)}: {summary}"])


def share_trained(examples: Iterable[Example]) -> float:
    """Trained tokens / all tokens, 0 to 1; 0 without any."""
    trained = total = 0
    for example in examples:
        trained += example.trained_tokens
        total += len(example)
    return trained / total if total else 0.0


def _tokens(count: int) -> str:
    return f"{count:,} token{'s' * (count != 1)}"


def _kind(segment: Segment) -> str:
    if segment.trained:
        return {None: "trained", True: "right", False: "wrong"}[segment.label]
    return "template" if segment.source == "template" else "context"


def _runs(segments: Sequence[Segment], to_text: Decode, max_tokens: int | None, before: Sequence[Segment] = ()) -> list[tuple[str, str]]:
    """(kind, visible text) for each longest run of tokens of one kind; `before` is what stands before them."""
    tokens = [(_kind(segment), int(token)) for segment in segments for token in segment.token_ids]
    ids = [token for _, token in tokens]
    left_out = range(0)
    if max_tokens is not None and len(ids) > max_tokens:
        left_out = range((max_tokens + 1) // 2, len(ids) - max_tokens // 2)
        for index in left_out:
            tokens[index] = ("left out", ids[index])
    head = [int(token) for segment in before for token in segment.token_ids]
    runs, end, said = [], 0, to_text(head) if head else ""
    for kind, run in groupby(kind for kind, _ in tokens):
        start, end = end, end + len(list(run))
        until = to_text(head + ids[:end])
        if kind == "left out":
            runs.append((kind, f" … {len(left_out):,} tokens left out … "))
        else:  # What a run adds to the text before it: alone, some tokenizers would drop its first space.
            runs.append((kind, visible(until[len(said) :] if until.startswith(said) else to_text(ids[start:end]))))
        said = until
    return runs


def visible(text: str) -> str:
    """Newlines as ⏎, other control characters as ``\\x1b``: a terminal must not obey the data."""
    escaped = "".join(char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return escaped.replace("\n", "⏎\n")


def _bin_size(span: int, most: int = 12) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, … that cuts `span` into at most `most` bins."""
    power = 10 ** max(0, math.floor(math.log10(span / most)))
    return next(size for size in (power, 2 * power, 5 * power, 10 * power) if span <= most * size)


def _bar(length: float) -> str:
    eighths = max(round(length * 8), length > 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
