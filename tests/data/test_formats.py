import time

import pytest

from burnish.data.formats import FORMATS, SFT_FORMATS, SPEAKERS, Format, check_rows
from burnish.data.messages import _ROLES
from burnish.data.rows import DataError, ListRows

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def failure(*rows, **options):
    with pytest.raises(DataError) as caught:
        check_rows(ListRows(list(rows), "data"), **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "name", "conversational", "unused"),
    [
        ({"text": "a", "id": 1}, "text", False, ("id",)),
        ({"messages": TURNS, "tools": None}, "messages", True, ("tools",)),
        ({"messages": TURNS, "text": "a", "tools": "[]"}, "messages", True, ("text",)),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}, "conversations", True, ()),
        ({"prompt": "a", "completion": "b", "messages": TURNS}, "prompt_completion", False, ("messages",)),
        ({"prompt": TURNS[:1], "completion": TURNS[1:], "chat_template_kwargs": {"x": 1}}, "prompt_completion", True, ()),
        ({"input_ids": [1, 2], "labels": [-100, 2], "text": "a"}, "input_ids", False, ("text",)),
        ({"input_ids": [1, 2], "assistant_masks": [0, 1], "attention_mask": [1, 1]}, "input_ids", False, ()),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "messages", True, ()),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, "messages", True, ()),
    ],
)
def test_formats(row, name, conversational, unused):
    found = check_rows(ListRows([row]))
    assert (found.name, found.conversational, found.unused) == (name, conversational, unused)
    assert set(found.columns) == set(row) - set(unused)


def test_text_field_and_formatting_func():
    assert check_rows([{"body": "a", "text": None}], text_field="body").columns == ("body",)
    assert check_rows([{"anything": 1}], has_formatting_func=True) == Format(name="formatting_func")


ACCEPTED = "'text', 'conversations', 'messages', 'prompt'+'completion', 'input_ids' or a formatting_func"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"message": TURNS, "id": 1},
            f"data[0] has the columns ['message', 'id'], but a row needs {ACCEPTED}: column 'message' looks like 'messages'.",
        ),
        ({"Text": "a"}, f"data[0] has the columns ['Text'], but a row needs {ACCEPTED}: column 'Text' looks like 'text'."),
        (
            {"instruction": "a", "output": "b"},
            f"data[0] has the columns ['instruction', 'output'], but a row needs {ACCEPTED}: "
            "column 'instruction' looks like 'prompt', rename it or give a formatting_func.",
        ),
        ({"prompt": "a"}, f"data[0] has the columns ['prompt'], but a row needs {ACCEPTED}: column 'prompt' needs 'completion' beside it."),
        ({"text": None}, f"data[0] has the columns ['text'], but a row needs {ACCEPTED}: column 'text' is None."),
        ({"xyz": 1}, f"data[0] has the columns ['xyz'], but a row needs {ACCEPTED}."),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "data[0] has the columns 'chosen', 'rejected', which are for preference methods such as DPO; "
            f"give rows of {ACCEPTED}, or select the columns to read.",
        ),
        ({"text": 3}, "data[0]: 'text' is of type int, not text."),
        ({"messages": "Hi"}, "data[0]: 'messages' is of type str, not a list of messages with a role and a content."),
        ({"messages": []}, "data[0]: 'messages' is an empty conversation; give at least one message."),
        ({"messages": ["Hi"]}, "data[0]: 'messages' message 0 is of type str, not an object with a role and a content."),
        (
            {"messages": [TURNS[0], {"rôle": "user", "content": "a"}]},
            "data[0]: 'messages' message 1 has no role; its fields are ['rôle', 'content'] ('rôle' looks like 'role').",
        ),
        (
            {"messages": [{"role": "asistant", "content": "a"}]},
            "data[0]: 'messages' message 0 has the unknown role 'asistant' (did you mean 'assistant'?); "
            "the roles are system, developer, user, assistant, tool, function, ipython, model, chatbot.",
        ),
        (
            {"messages": [{"role": "user", "text": "a"}]},
            "data[0]: 'messages' message 0 (role 'user') has no content and no tool calls; its fields are ['role', 'text'].",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "data[0]: 'messages' message 0 (role 'user') has content of type list; give text, or parts of the type 'text'.",
        ),
        (
            {"conversations": [{"from": "alien", "value": "a"}]},
            "data[0]: 'conversations' message 0 has the unknown role 'alien'; the roles are "
            "human, user, gpt, assistant, system, tool, observation, function_response, function_call.",
        ),
        (
            {"prompt": TURNS, "completion": "a"},
            "data[0]: 'completion' is of type str, not a list of messages with a role and a content.",
        ),
        (
            {"prompt": "a", "completion": TURNS},
            "data[0]: 'completion' is of type list, not text; prompt and completion are both text or both lists of messages.",
        ),
        ({"messages": TURNS, "chat_template_kwargs": "x"}, "data[0]: 'chat_template_kwargs' is of type str, not an object of arguments."),
        ({"input_ids": "1 2"}, "data[0]: 'input_ids' is not a flat list of token ids."),
        ({"input_ids": [1, 2], "labels": [1]}, "data[0]: 'labels' has 1 entries for 2 token ids; give one for each."),
        (
            {"input_ids": [1, 2], "labels": [2, -100]},
            "data[0]: 'labels' has 2 where 'input_ids' has 1; a label is its token or -100, unshifted.",
        ),
        (
            {"input_ids": [1], "labels": [1], "completion_mask": [0]},
            "data[0] has both 'labels' and a mask; give one of them, as they may disagree.",
        ),
        ({"input_ids": [1, 2], "attention_mask": [1, 0]}, "data[0]: 'attention_mask' hides tokens; give rows without padding."),
    ],
)
def test_what_is_wrong_is_said(row, message):
    assert failure(row) == message


def test_a_later_row_that_differs_is_named():
    good = {"messages": TURNS}
    assert failure(good, good, {"text": "a"}) == "data[2] has no 'messages', which the first row has; its columns are ['text']."
    assert (
        failure({"body": "a"}, {"body": None}, text_field="body")
        == "data[1] has no 'body', which the first row has; its columns are ['body']."
    )
    check_rows(ListRows([good] * 3 + [{"text": "a"}]), first=3)


def test_no_rows():
    assert failure() == "The data is empty: it has no rows."


def test_speakers_are_those_the_renderer_knows():
    assert set(SPEAKERS) == set(_ROLES)


def test_the_table_has_room_for_later_methods():
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    assert check_rows(rows, accepted=("preference",)).columns == ("chosen", "rejected", "prompt")
    assert set(SFT_FORMATS) < set(FORMATS)


def test_a_hundred_rows_are_checked_at_once():
    rows = ListRows([{"messages": TURNS * 3}] * 100)
    best = min(_seconds(rows) for _ in range(5))
    assert best < 0.05


def _seconds(rows):
    start = time.perf_counter()
    check_rows(rows)
    return time.perf_counter() - start
