"""The row formats, and the check of the first rows before anything is loaded. Neither torch nor transformers is imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from burnish.data.cells import MASKS, check_ids, check_label, check_list, check_messages, check_number, check_one_each, check_tokens
from burnish.data.rows import DataError, Row, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFormat:
    """A line of the table of formats."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    instead: str = ""
    """For a format that the caller does not accept: what it is for."""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.required + self.optional


CHAT_OPTIONS = ("tools", "chat_template_kwargs")
SCORES = ("score_chosen", "score_rejected")
_PAIRS, _SFT = "preference methods such as DPO", "supervised fine-tuning"

FORMATS = {
    row_format.name: row_format
    for row_format in (  # a row that fits several of those accepted is read as the first of them
        RowFormat(name="input_ids", required=("input_ids",), optional=("labels", *MASKS, "attention_mask"), instead=_SFT),
        RowFormat(name="preference_ids", required=("chosen_ids", "rejected_ids"), optional=("prompt_ids", "margin"), instead=_PAIRS),
        RowFormat(
            name="preference", required=("chosen", "rejected"), optional=("prompt", "margin", *SCORES, *CHAT_OPTIONS), instead=_PAIRS
        ),
        RowFormat(name="unpaired", required=("prompt", "completion", "label"), optional=CHAT_OPTIONS, instead="KTO"),
        RowFormat(name="scored", required=("prompt", "completions", "scores"), optional=CHAT_OPTIONS, instead=_PAIRS),
        RowFormat(name="stepwise", required=("prompt", "completions", "labels"), instead="process reward models"),
        RowFormat(name="prompt_completion", required=("prompt", "completion"), optional=CHAT_OPTIONS, instead=_SFT),
        RowFormat(name="messages", required=("messages",), optional=CHAT_OPTIONS, instead=_SFT),
        RowFormat(name="conversations", required=("conversations",), optional=CHAT_OPTIONS, instead=_SFT),
        RowFormat(name="text", required=("text",), instead=_SFT),
        RowFormat(name="prompt", required=("prompt",), optional=CHAT_OPTIONS, instead="online methods such as GRPO"),
    )
}
CHAT = ("messages", "conversations")
SFT_FORMATS = ("input_ids", "prompt_completion", "messages", "conversations", "text")
PAIR_FORMATS = ("preference_ids", "scored", "preference")
"""From each of these a chosen and a rejected completion of one prompt are read."""
UNPAIRED_FORMATS = (*PAIR_FORMATS, "unpaired")
"""From each of these completions with labels are read."""
STEPWISE_FORMATS = ("stepwise",)
GROUP_FORMATS = frozenset((*UNPAIRED_FORMATS, *STEPWISE_FORMATS))
"""Those whose examples have a prompt and, perhaps, several branches."""
_IN_EVERY_ROW = ("prompt", "prompt_ids", "margin")
"""Columns of pairs that all rows have where the first has them."""

ALIASES = {
    "instruction": "prompt",
    "question": "prompt",
    "query": "prompt",
    "response": "completion",
    "answer": "completion",
    "output": "completion",
    "dialog": "messages",
    "dialogue": "messages",
    "chat": "messages",
    "content": "text",
    "tokens": "input_ids",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How the rows of a source are read."""

    name: str
    """A key of `FORMATS`, or ``"formatting_func"``, whose results are looked at when they are made."""
    columns: tuple[str, ...] = ()
    """The columns that are read."""
    conversational: bool = False
    unused: tuple[str, ...] = field(default=(), compare=False)
    """Columns of the first row that are not read."""

    @property
    def implicit(self) -> bool:
        """Whether rows are pairs whose prompt is what the two have in common."""
        return self.name in ("preference", "preference_ids") and not {"prompt", "prompt_ids"} & set(self.columns)

    def __str__(self) -> str:
        name = {"prompt_completion": "prompt+completion", "preference_ids": "preference as token ids"}.get(self.name, self.name)
        name += " of messages" if self.conversational and self.name not in CHAT else ""
        return name + " without a prompt of their own" * self.implicit


def check_rows(
    rows: Rows | Sequence[Row],
    *,
    text_field: str = "text",
    has_formatting_func: bool = False,
    accepted: Sequence[str] = SFT_FORMATS,
    first: int = 100,
) -> Format:
    """Finds the format of `rows` from row 0 and checks the `first` rows against it.

    Errors: DataError naming the row, the columns seen, the formats accepted and the nearest one; or the message, role or
    content that is wrong; or the column that a later row lacks.
    """

    def where(i: int) -> str:
        return rows.where(i) if isinstance(rows, Rows) else f"rows[{i}]"

    if not len(rows):
        raise DataError("The data is empty: it has no rows.")
    if has_formatting_func:
        return Format(name="formatting_func")
    found = find_format(rows[0], where(0), text_field=text_field, accepted=accepted)
    for i in range(min(first, len(rows))):
        check_row(rows[i], where(i), found)
    return found


def find_format(row: Row, where: str, *, text_field: str = "text", accepted: Sequence[str] = SFT_FORMATS) -> Format:
    """The format of one row, by its columns: the first of `FORMATS` that is accepted and fits."""
    present = [name for name, value in row.items() if value is not None]

    def fits(row_format: RowFormat) -> bool:
        return set(_required(row_format.name, text_field, present)).issubset(present)

    fitting = [one for one in FORMATS.values() if fits(one)]
    for row_format in fitting:
        if row_format.name in accepted:
            return _format(row_format, row, present, text_field)
    if fitting and fitting[0].name != "prompt":
        required = ", ".join(map(repr, _required(fitting[0].name, text_field, present)))
        raise DataError(
            f"{where} has the columns {required}, which are for {fitting[0].instead}; "
            f"give rows of {_describe(accepted, text_field)}, or select the columns to read."
        )
    raise DataError(
        f"{where} has the columns {list(row)}, but a row needs {_describe(accepted, text_field)}{_nearest(row, text_field, accepted)}."
    )


def _format(row_format: RowFormat, row: Row, present: Sequence[str], text_field: str) -> Format:
    name, required = row_format.name, _required(row_format.name, text_field, present)
    optional = [column for column in row_format.optional if column in present]
    either = (*PAIR_FORMATS[1:], "unpaired", "prompt_completion", "prompt")
    conversational = name in CHAT or (name in either and isinstance(row[required[0]], list))
    if name == "preference" and conversational and isinstance(row.get("prompt"), str):
        optional.remove("prompt")  # some sets repeat the question as text beside conversations that begin with it
    columns = (*required, *optional)
    return Format(
        name=name, columns=columns, conversational=conversational, unused=tuple(column for column in row if column not in columns)
    )


def _required(name: str, text_field: str, present: Collection[str]) -> tuple[str, ...]:
    """The columns that make a row one of the format `name`, given those that are `present`."""
    if name == "scored" and "ratings" in present and "scores" not in present:
        return (*FORMATS[name].required[:-1], "ratings")
    return (text_field,) if name == "text" else FORMATS[name].required


def _describe(accepted: Sequence[str], text_field: str) -> str:
    optional = {"preference": "['prompt'+]", "preference_ids": "['prompt_ids'+]"}
    names = [optional.get(name, "") + "+".join(map(repr, _required(name, text_field, ()))) for name in reversed(accepted)]
    return ", ".join(names).replace("'scores'", "'scores' (or 'ratings')") + " or a formatting_func"


def _nearest(row: Row, text_field: str, accepted: Sequence[str]) -> str:
    """What the columns seen look like; a clause to end a sentence with."""
    required = {name: _required(name, text_field, row) for name in FORMATS if name in accepted}
    begun = {
        name: [c for c in dict.fromkeys(("prompt", *columns)) if c in row and c in (*columns, *FORMATS[name].columns)]
        for name, columns in required.items()
    }
    if any(begun.values()):
        name = max(begun, key=lambda name: len(begun[name]))
        return _half(row, begun[name], [column for column in required[name] if column not in row])
    known = [column for columns in required.values() for column in columns]
    for column in row:
        if near := get_close_matches(column.lower(), known, n=1):
            return f": column {column!r} looks like {near[0]!r}"
    for column in row:
        if column.lower() in ALIASES:
            return f": column {column!r} looks like {ALIASES[column.lower()]!r}, rename it or give a formatting_func"
    return ""


def _half(row: Row, half: Sequence[str], missing: Sequence[str]) -> str:
    empty = [column for column in half if row[column] is None]
    if empty:
        return f": column {empty[0]!r} is None"
    needs = ("needs", "it") if len(half) == 1 else ("need", "them")
    columns, others = ", ".join(map(repr, half)), " and ".join(map(repr, missing))
    return f": column{'s' * (len(half) > 1)} {columns} {needs[0]} {others} beside {needs[1]}"


def check_row(row: Row, where: str, fmt: Format) -> None:
    """Checks the cells of one row. Errors: DataError naming the row, the column and, in a conversation, the message."""
    required = fmt.columns if fmt.name == "text" else fmt.columns[: len(FORMATS[fmt.name].required)]
    if fmt.name in GROUP_FORMATS:
        required = _check_like_first(row, where, fmt)
    for column in required:
        if row.get(column) is None:
            raise DataError(f"{where} has no {column!r}, which the first row has; its columns are {list(row)}.")
        _check_cell(row[column], where, column, fmt)
    if fmt.conversational and not isinstance(row.get("chat_template_kwargs") or {}, Mapping):
        raise DataError(
            f"{where}: 'chat_template_kwargs' is of type {type(row['chat_template_kwargs']).__name__}, not an object of arguments."
        )
    if fmt.name == "input_ids":
        check_tokens(row, where)
    elif "completions" in required:
        check_one_each(row, where, required[-1], "completions")


_CELLS = {
    "prompt_ids": check_ids,
    "chosen_ids": check_ids,
    "rejected_ids": check_ids,
    "label": check_label,
    "margin": check_number,
    "score_chosen": check_number,
    "score_rejected": check_number,
}
_LISTS = {
    "labels": ("true and false", check_label),
    "scores": ("numbers", check_number),
    "ratings": ("numbers", check_number),
    "completions": ("completions", None),
}
"""Columns of the preference formats: what their cells, or the entries of their cells, are. None: text or messages."""


def _check_cell(cell: Any, where: str, column: str, fmt: Format) -> None:
    if fmt.name == "input_ids":
        return
    if fmt.name not in GROUP_FORMATS or column not in {*_CELLS, *_LISTS}:
        _check_said(cell, where, column, fmt)
    elif column in _CELLS:
        _CELLS[column](cell, where, column)
    else:
        what, check = _LISTS[column]
        check_list(cell, where, column, what)
        for i, one in enumerate(cell):
            if check:
                check(one, where, f"{column}[{i}]")
            else:
                _check_said(one, where, f"{column}[{i}]", fmt)


def _check_said(cell: Any, where: str, column: str, fmt: Format) -> None:
    """Text or messages, as in the first row. An empty completion of a pair is counted when it is read, not refused."""
    if fmt.conversational:
        if cell != [] or column == "prompt" or fmt.name not in GROUP_FORMATS:
            check_messages(cell, where, column)
    elif not isinstance(cell, str):
        raise DataError(f"{where}: {column!r} is of type {type(cell).__name__}, not text{_mixed(cell, fmt)}.")


def _mixed(value: Any, fmt: Format) -> str:
    if isinstance(value, list) and fmt.name != "stepwise" and len(FORMATS[fmt.name].required) > 1:
        return "; prompt and completion are both text or both lists of messages"
    return ""


def _check_like_first(row: Row, where: str, fmt: Format) -> tuple[str, ...]:
    """The columns that each row of a preference format needs. Errors: DataError for one that the first row has not."""
    required = fmt.columns[: len(FORMATS[fmt.name].required)]
    if fmt.name not in ("preference", "preference_ids"):
        return required
    for column in _IN_EVERY_ROW:
        if column in fmt.columns:
            required = (*required, column)
        elif column in FORMATS[fmt.name].optional and row.get(column) is not None:
            _check_unread(row, where, column, fmt)
    scores = [column for column in SCORES if row.get(column) is not None]
    if len(scores) == 1 and fmt.name == "preference":
        raise DataError(f"{where} has {scores[0]!r} alone; give both 'score_chosen' and 'score_rejected', or none.")
    return (*required, *(scores if fmt.name == "preference" else ()))


def _check_unread(row: Row, where: str, column: str, fmt: Format) -> None:
    """A prompt as text may stand beside conversations that begin with it: it is not read."""
    if not (fmt.conversational and column == "prompt" and isinstance(row[column], str)):
        raise DataError(f"{where} has a {column!r}, which the first row has not; give it in all rows or in none.")
    for name in ("chosen", "rejected"):
        first = row[name][0] if isinstance(row.get(name), list) and row[name] else {}
        if isinstance(first, Mapping) and first.get("role", first.get("from")) in ("assistant", "gpt", "model"):
            raise DataError(f"{where}: 'prompt' is text and {name!r} is messages that do not hold it; give the prompt as messages too.")


def check_loss_options(fmt: Format, *, completion_only_loss: bool | None, assistant_only_loss: bool) -> None:
    """Errors: DataError for an option that the format would ignore."""
    if completion_only_loss and fmt.name in ("text", *CHAT):
        raise DataError(f"completion_only_loss=True needs rows with a prompt and a completion, and these are {fmt.name}; leave it out.")
    if assistant_only_loss and not (fmt.conversational or "assistant_masks" in fmt.columns or fmt.name == "formatting_func"):
        raise DataError(f"assistant_only_loss=True needs conversations, and these rows are {fmt}; leave it out.")
