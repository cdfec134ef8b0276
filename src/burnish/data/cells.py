"""Checks of single cells: messages, token ids, labels, scores. Neither torch nor transformers is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from burnish.data.rows import DataError, Row, did_you_mean

MASKS = ("completion_mask", "assistant_masks")

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "model", "chatbot")
SPEAKERS = ("human", "user", "gpt", "assistant", "system", "tool", "observation", "function_response", "function_call")
"""Who speaks in a from/value turn; `data/chat.py` says which role each has."""


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
    check_ids(ids, where, "input_ids")
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


def check_ids(ids: Any, where: str, column: str) -> None:
    """A flat list of token ids."""
    if not isinstance(ids, list) or not all(isinstance(token, int) and token >= 0 for token in ids):
        raise DataError(f"{where}: {column!r} is not a flat list of token ids.")


def check_label(label: Any, where: str, column: str) -> None:
    """true, false, 1 or 0."""
    if not isinstance(label, int) or label not in (0, 1):
        raise DataError(f"{where}: {column!r} is {label!r}; a label is true or false (or 1 or 0).")


def check_number(number: Any, where: str, column: str) -> None:
    """A finite number."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise DataError(f"{where}: {column!r} is {number!r}, not a finite number.")


def check_list(cell: Any, where: str, column: str, what: str) -> None:
    """A list, of `what`."""
    if not isinstance(cell, list):
        raise DataError(f"{where}: {column!r} is of type {type(cell).__name__}, not a list of {what}.")


def check_one_each(row: Row, where: str, column: str, of: str) -> None:
    """`column` and `of` are lists of one length."""
    if len(row[column]) != len(row[of]):
        raise DataError(f"{where}: {column!r} has {len(row[column])} entries for {len(row[of])} {of}; give one for each.")
