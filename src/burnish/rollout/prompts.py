"""Rows → the token ids that a sampler is given as context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from burnish.data.cells import check_messages
from burnish.data.chat import ChatRenderer, ChatTemplateError
from burnish.data.formats import CHAT
from burnish.data.readers import chat_arguments, conversation
from burnish.data.rows import DataError, Rows
from burnish.data.spans import ASSISTANT_ROLES
from burnish.data.tokenise import TextEncoder


def prompt_of(row: Mapping[str, Any], where: str) -> str | list[dict[str, Any]]:
    """A row's `prompt`, as text or messages; or its `messages` (or `conversations`) without their last turn, where that is the assistant's.

    Errors: DataError, with `where`, for a row that has none of them, or a cell that is neither text nor a conversation.
    """
    if row.get("prompt") is not None:
        prompt = row["prompt"]
        if not isinstance(prompt, str):
            check_messages(prompt, where, "prompt")
        return prompt
    column = next((name for name in CHAT if row.get(name) is not None), None)
    if column is None:
        raise DataError(f"{where} has the columns {list(row)}, but a row to sample from needs 'prompt' or 'messages'.")
    check_messages(row[column], where, column)
    turns = list(row[column])
    if turns[-1].get("role", turns[-1].get("from")) in (*ASSISTANT_ROLES, "gpt"):
        turns.pop()
    if not turns:
        raise DataError(f"{where}: {column!r} holds an answer alone, and nothing before it to be answered; give at least one more message.")
    return turns


class PromptRenderer:
    """Prompts as token ids: texts as `prompt`s of text are encoded for training, conversations with their generation prompt.

    `stop_token_ids`: as in `ChatRenderer`. The tokenizer is copied, so change it before.
    """

    def __init__(self, tokenizer: Any, stop_token_ids: Iterable[int] = ()) -> None:
        self._tokenizer, self._stop_token_ids = tokenizer, tuple(stop_token_ids)
        self._texts = TextEncoder(tokenizer)
        self._chat: ChatRenderer | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]] | Rows) -> list[np.ndarray]:
        """int32 ids of each row's prompt, at least one. Errors: DataError naming the row, by `Rows.where` where that is what is given."""
        name = rows.where if isinstance(rows, Rows) else "rows[{}]".format
        places = [name(i) for i in range(len(rows))]
        prompts = [prompt_of(row, where) for row, where in zip(rows, places, strict=True)]
        texts = iter(self._texts.encode([prompt for prompt in prompts if isinstance(prompt, str)]))
        spoken = [
            self._rendered(prompt, row, at) for prompt, row, at in zip(prompts, rows, places, strict=True) if not isinstance(prompt, str)
        ]
        conversations = iter(self._texts.encode(spoken))
        before = np.asarray(self._texts.prefix, dtype=np.int32)
        found = [np.concatenate((before, next(texts))) if isinstance(prompt, str) else next(conversations) for prompt in prompts]
        for ids, where in zip(found, places, strict=True):
            if not len(ids):
                raise DataError(f"{where} has a prompt without a token; give a text, or a tokenizer with a BOS token.")
        return found

    def _rendered(self, prompt: list[dict[str, Any]], row: Mapping[str, Any], where: str) -> str:
        try:
            self._chat = self._chat or ChatRenderer(self._tokenizer, stop_token_ids=self._stop_token_ids)
            return self._chat.prompt_text(conversation(prompt), **chat_arguments(dict(row)))
        except ChatTemplateError as error:
            raise DataError(f"{where}: {error}") from error
