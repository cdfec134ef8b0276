"""The row formats, and the check of the first rows before anything is loaded. Neither torch nor transformers is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from burnish.data.rows import DataError, Row, Rows, did_you_mean


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
MASKS = ("completion_mask", "assistant_masks")

FORMATS = {
    row_format.name: row_format
    for row_format in (  # a row that fits several is read as the first of them
        RowFormat(name="input_ids", required=("input_ids",), optional=("labels", *MASKS, "attention_mask")),
        RowFormat(
            name="preference", required=("chosen", "rejected"), optional=("prompt", *CHAT_OPTIONS), instead="preference methods such as DPO"
        ),
        RowFormat(name="prompt_completion", required=("prompt", "completion"), optional=CHAT_OPTIONS),
        RowFormat(name="messages", required=("messages",), optional=CHAT_OPTIONS),
        RowFormat(name="conversations", required=("conversations",), optional=CHAT_OPTIONS),
        RowFormat(name="text", required=("text",)),
        RowFormat(name="prompt", required=("prompt",), optional=CHAT_OPTIONS, instead="online methods such as GRPO"),
    )
}
CHAT = ("messages", "conversations")
SFT_FORMATS = ("input_ids", "prompt_completion", "messages", "conversations", "text")

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "model", "chatbot")
SPEAKERS = ("human", "user", "gpt", "assistant", "system", "tool", "observation", "function_response", "function_call")
"""Who speaks in a from/value turn; `data/chat.py` says which role each has."""

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

    def __str__(self) -> str:
        return self.name.replace("_", "+") + (" of messages" if self.name == "prompt_completion" and self.conversational else "")


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
    """The format of one row, by its columns."""
    present = [name for name, value in row.items() if value is not None]
    for row_format in FORMATS.values():
        required = (text_field,) if row_format.name == "text" else row_format.required
        if not set(required).issubset(present):
            continue
        if row_format.name not in accepted:
            if row_format.name == "prompt":
                break
            raise DataError(
                f"{where} has the columns {', '.join(map(repr, required))}, which are for {row_format.instead}; "
                f"give rows of {_describe(accepted, text_field)}, or select the columns to read."
            )
        columns = (*required, *(name for name in row_format.optional if name in present))
        return Format(
            name=row_format.name,
            columns=columns,
            conversational=row_format.name in CHAT or (row_format.name not in ("text", "input_ids") and isinstance(row[required[0]], list)),
            unused=tuple(name for name in row if name not in columns),
        )
    raise DataError(
        f"{where} has the columns {list(row)}, but a row needs {_describe(accepted, text_field)}{_nearest(row, text_field, accepted)}."
    )


def _describe(accepted: Sequence[str], text_field: str) -> str:
    names = [repr(text_field) if name == "text" else "+".join(map(repr, FORMATS[name].required)) for name in reversed(accepted)]
    return ", ".join(names) + " or a formatting_func"


def _nearest(row: Row, text_field: str, accepted: Sequence[str]) -> str:
    """What the columns seen look like; a clause to end a sentence with."""
    known = [text_field, *(column for name in accepted if name != "text" for column in FORMATS[name].required)]
    if half := [column for column in ("prompt", "completion") if column in row]:
        missing = "completion" if half == ["prompt"] else "prompt"
        return f": column {half[0]!r} needs {missing!r} beside it" if row[half[0]] is not None else f": column {half[0]!r} is None"
    for column in row:
        if near := get_close_matches(column.lower(), known, n=1):
            return f": column {column!r} is None" if column == near[0] else f": column {column!r} looks like {near[0]!r}"
    for column in row:
        if column.lower() in ALIASES:
            return f": column {column!r} looks like {ALIASES[column.lower()]!r}, rename it or give a formatting_func"
    return ""


def check_row(row: Row, where: str, fmt: Format) -> None:
    """Checks the cells of one row. Errors: DataError naming the row, the column and, in a conversation, the message."""
    for column in FORMATS[fmt.name].required if fmt.name != "text" else fmt.columns:
        if row.get(column) is None:
            raise DataError(f"{where} has no {column!r}, which the first row has; its columns are {list(row)}.")
        if fmt.conversational:
            check_messages(row[column], where, column)
        elif fmt.name != "input_ids" and not isinstance(row[column], str):
            raise DataError(f"{where}: {column!r} is of type {type(row[column]).__name__}, not text{_mixed(row[column], fmt)}.")
    if fmt.conversational and not isinstance(row.get("chat_template_kwargs") or {}, Mapping):
        raise DataError(
            f"{where}: 'chat_template_kwargs' is of type {type(row['chat_template_kwargs']).__name__}, not an object of arguments."
        )
    if fmt.name == "input_ids":
        check_tokens(row, where)


def _mixed(value: Any, fmt: Format) -> str:
    if isinstance(value, list) and fmt.name == "prompt_completion":
        return "; prompt and completion are both text or both lists of messages"
    return ""


def check_loss_options(fmt: Format, *, completion_only_loss: bool | None, assistant_only_loss: bool) -> None:
    """Errors: DataError for an option that the format would ignore."""
    if completion_only_loss and fmt.name in ("text", *CHAT):
        raise DataError(f"completion_only_loss=True needs rows with a prompt and a completion, and these are {fmt.name}; leave it out.")
    if assistant_only_loss and not (fmt.conversational or "assistant_masks" in fmt.columns or fmt.name == "formatting_func"):
        raise DataError(f"assistant_only_loss=True needs conversations, and these rows are {fmt}; leave it out.")


def check_messages(messages: Any, where: str, column: str) -> None:
    """A conversation is a non-empty list of objects with role/content or from/value."""
    if not isinstance(messages, list):
        raise DataError(f"{where}: {column!r} is of type {type(messages).__name__}, not a list of messages with a role and a content.")
    if not messages:
        raise DataError(f"{where}: {column!r} is an empty conversation; give at least one message.")
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise DataError(
                f"{where}: {column!r} message {i} is of type {type(message).__name__}, not an object with a role and a content."
            )
        _check_message(message, f"{where}: {column!r} message {i}")


def _check_message(message: Mapping[str, Any], at: str) -> None:
    role_key = "from" if "from" in message and "role" not in message else "role"
    role, known = message.get(role_key), SPEAKERS if role_key == "from" else ROLES
    if role is None:
        raise DataError(f"{at} has no role; its fields are {list(message)}{_near_field(message)}.")
    if role not in known:
        raise DataError(f"{at} has the unknown role {role!r}{did_you_mean(str(role).lower(), known)}; the roles are {', '.join(known)}.")
    content = message.get("value" if role_key == "from" else "content")
    if content is None:
        if not any(message.get(name) for name in ("tool_calls", "function_call", "reasoning_content", "thinking")):
            raise DataError(f"{at} (role {role!r}) has no content and no tool calls; its fields are {list(message)}.")
    elif not isinstance(content, str) and not _is_text_parts(content):
        raise DataError(f"{at} (role {role!r}) has content of type {type(content).__name__}; give text, or parts of the type 'text'.")


def _near_field(message: Mapping[str, Any]) -> str:
    near = [name for name in message if get_close_matches(str(name).lower(), ["role", "from"], n=1)]
    return f" ({near[0]!r} looks like 'role')" if near else ""


def _is_text_parts(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    )


def check_tokens(row: Row, where: str) -> None:
    """Token ids are a non-empty list of non-negative integers; labels repeat them or are -100; masks are 0 and 1."""
    ids = row["input_ids"]
    if not isinstance(ids, list) or not all(isinstance(token, int) and token >= 0 for token in ids):
        raise DataError(f"{where}: 'input_ids' is not a flat list of token ids.")
    if row.get("labels") is not None and any(row.get(mask) is not None for mask in MASKS):
        raise DataError(f"{where} has both 'labels' and a mask; give one of them, as they may disagree.")
    for column in ("labels", *MASKS, "attention_mask"):
        cells = row.get(column)
        if cells is not None and len(cells) != len(ids):
            raise DataError(f"{where}: {column!r} has {len(cells)} entries for {len(ids)} token ids; give one for each.")
    for token, label in zip(ids, row.get("labels") or ids, strict=True):
        if label not in (token, -100):
            raise DataError(f"{where}: 'labels' has {label} where 'input_ids' has {token}; a label is its token or -100, unshifted.")
    if not all(row.get("attention_mask") or [1]):
        raise DataError(f"{where}: 'attention_mask' hides tokens; give rows without padding.")
