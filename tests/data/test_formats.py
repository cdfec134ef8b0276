import time

import pytest

from burnish.data.cells import SPEAKERS
from burnish.data.formats import FORMATS, PAIR_FORMATS, SFT_FORMATS, STEPWISE_FORMATS, UNPAIRED_FORMATS, Format, check_rows
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


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
LABELLED = {"prompt": "a", "completion": "b", "label": True}
SCORED = {"prompt": "a", "completions": ["b", "c"], "scores": [1, 0.5]}
STEPS = {"prompt": "a", "completions": ["b", "c"], "labels": [True, 0]}


@pytest.mark.parametrize(
    ("row", "accepted", "name", "columns", "said"),
    [
        (PAIR, PAIR_FORMATS, "preference", "chosen rejected prompt", "preference"),
        (PAIR | {"id": 1, "margin": 1, "prompt": None}, UNPAIRED_FORMATS, "preference", "chosen rejected margin", None),
        ({"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": []}, PAIR_FORMATS, "preference", "chosen rejected prompt", None),
        ({"chosen": TURNS, "rejected": TURNS, "prompt": "Hi"}, PAIR_FORMATS, "preference", "chosen rejected", None),
        ({"chosen_ids": [1], "rejected_ids": [2], "chosen": "a"}, PAIR_FORMATS, "preference_ids", "chosen_ids rejected_ids", None),
        (SCORED, PAIR_FORMATS, "scored", "prompt completions scores", "scored"),
        (SCORED | {"scores": None, "ratings": [1, 2]}, PAIR_FORMATS, "rated", "prompt completions ratings", "rated"),
        (STEPS, STEPWISE_FORMATS, "stepwise", "prompt completions labels", "stepwise"),
        (LABELLED, UNPAIRED_FORMATS, "unpaired", "prompt completion label", "unpaired"),
        (LABELLED, SFT_FORMATS, "prompt_completion", "prompt completion", "prompt+completion"),
        (PAIR | {"messages": TURNS}, SFT_FORMATS, "messages", "messages", "messages"),
        (PAIR | {"messages": TURNS}, PAIR_FORMATS, "preference", "chosen rejected prompt", "preference"),
    ],
)
def test_a_row_that_fits_several_formats_is_read_as_one_that_is_accepted(row, accepted, name, columns, said):
    found = check_rows([row], accepted=accepted)
    assert (found.name, " ".join(found.columns)) == (name, columns)
    assert set(found.unused) == set(row) - set(found.columns)
    assert str(found) == said or said is None


def test_a_format_says_whether_rows_have_a_prompt_of_their_own():
    turns = check_rows([{"chosen": TURNS, "rejected": TURNS}], accepted=PAIR_FORMATS)
    assert (turns.implicit, str(turns)) == (True, "preference of messages without a prompt of their own")
    ids = check_rows([{"chosen_ids": [1], "rejected_ids": [2]}], accepted=PAIR_FORMATS)
    assert (ids.implicit, str(ids)) == (True, "preference as token ids without a prompt of their own")
    assert not any(check_rows([row], accepted=UNPAIRED_FORMATS).implicit for row in (PAIR, SCORED, LABELLED))


PAIRS = "['prompt'+]'chosen'+'rejected', 'prompt'+'completions'+'scores', 'prompt'+'completions'+'ratings', "
PAIRS += "['prompt_ids'+]'chosen_ids'+'rejected_ids' or a formatting_func"
LABELS = f"'prompt'+'completion'+'label', {PAIRS}"


@pytest.mark.parametrize(
    ("row", "accepted", "message"),
    [
        (
            {"prompt": "a", "chosen": "b"},
            PAIR_FORMATS,
            f"has the columns ['prompt', 'chosen'], but a row needs {PAIRS}: columns 'prompt', 'chosen' need 'rejected' beside them.",
        ),
        ({"prompt": "a"}, UNPAIRED_FORMATS, f"has the columns ['prompt'], but a row needs {LABELS}: column 'prompt' needs 'chosen' and "),
        (PAIR | {"chosen": None}, PAIR_FORMATS, "column 'chosen' is None."),
        (
            {"prompt": "a", "completion": "b"},
            UNPAIRED_FORMATS,
            f"has the columns 'prompt', 'completion', which are for supervised fine-tuning; give rows of {LABELS}, or select",
        ),
        (LABELLED, PAIR_FORMATS, f"has the columns 'prompt', 'completion', 'label', which are for KTO; give rows of {PAIRS}, or"),
        (SCORED, SFT_FORMATS, "'prompt', 'completions', 'scores', which are for preference methods such as DPO; give"),
        (STEPS, SFT_FORMATS, "'prompt', 'completions', 'labels', which are for process reward models; give"),
        (PAIR, STEPWISE_FORMATS, "which are for preference methods such as DPO; give rows of 'prompt'+'completions'+'labels' or a form"),
        (
            PAIR | {"rejected": TURNS},
            PAIR_FORMATS,
            ": 'rejected' is of type list, not text; prompt and completion are both text or both lists of messages.",
        ),
        (PAIR | {"prompt": TURNS}, PAIR_FORMATS, ": 'prompt' is of type list, not text; prompt and completion are both text or both"),
        (PAIR | {"margin": "wide"}, PAIR_FORMATS, ": 'margin' is 'wide', not a finite number."),
        (PAIR | {"score_chosen": 1}, PAIR_FORMATS, " has 'score_chosen' alone; give both 'score_chosen' and 'score_rejected', or none."),
        (PAIR | {"score_chosen": 1, "score_rejected": True}, PAIR_FORMATS, ": 'score_rejected' is True, not a finite number."),
        (
            {"prompt": "Hi", "chosen": TURNS[1:], "rejected": TURNS[1:]},
            PAIR_FORMATS,
            ": 'prompt' is text and 'chosen' is messages that do not hold it; give the prompt as messages too.",
        ),
        (
            {"prompt": [], "chosen": TURNS, "rejected": TURNS},
            PAIR_FORMATS,
            ": 'prompt' is an empty conversation; give at least one message.",
        ),
        (LABELLED | {"label": "yes"}, UNPAIRED_FORMATS, ": 'label' is 'yes'; a label is true or false (or 1 or 0)."),
        (LABELLED | {"label": 2}, UNPAIRED_FORMATS, ": 'label' is 2; a label is true or false (or 1 or 0)."),
        (SCORED | {"scores": [1]}, PAIR_FORMATS, ": 'scores' has 1 entries for 2 completions; give one for each."),
        (SCORED | {"scores": [1, float("nan")]}, PAIR_FORMATS, ": 'scores[1]' is nan, not a finite number."),
        (SCORED | {"scores": 1}, PAIR_FORMATS, ": 'scores' is of type int, not a list of numbers."),
        (SCORED | {"completions": ["a", 3]}, PAIR_FORMATS, ": 'completions[1]' is of type int, not text."),
        (
            {"prompt": TURNS[:1], "completions": [[{"role": "asistant", "content": "a"}]], "scores": [1]},
            PAIR_FORMATS,
            ": 'completions[0]' message 0 has the unknown role 'asistant' (did you mean 'assistant'?)",
        ),
        (STEPS | {"labels": [1, None]}, STEPWISE_FORMATS, ": 'labels[1]' is None; a label is true or false (or 1 or 0)."),
        (STEPS | {"labels": [1]}, STEPWISE_FORMATS, ": 'labels' has 1 entries for 2 completions; give one for each."),
        (STEPS | {"prompt": TURNS}, STEPWISE_FORMATS, ": 'prompt' is of type list, not text."),
        ({"chosen_ids": [1, -1], "rejected_ids": [1]}, PAIR_FORMATS, ": 'chosen_ids' is not a flat list of token ids."),
    ],
)
def test_what_is_wrong_with_preferences_is_said(row, accepted, message):
    said = failure(row, accepted=accepted)
    assert said.startswith("data[0]")
    assert message in said


def test_all_rows_have_a_prompt_and_a_margin_or_none():
    without = {"chosen": "b", "rejected": "c"}
    assert failure(without, PAIR, accepted=PAIR_FORMATS) == (
        "data[1] has a 'prompt', which the first row has not; give it in all rows or in none."
    )
    assert failure(PAIR, without, accepted=PAIR_FORMATS).startswith("data[1] has no 'prompt', which the first row has;")
    assert failure(PAIR | {"margin": 1}, PAIR, accepted=PAIR_FORMATS).startswith("data[1] has no 'margin', which the first row has;")
    assert failure(PAIR, PAIR | {"margin": 1}, accepted=PAIR_FORMATS) == (
        "data[1] has a 'margin', which the first row has not; give it in all rows or in none."
    )
    assert set(SFT_FORMATS) < set(FORMATS)


def test_a_hundred_rows_are_checked_at_once():
    rows = ListRows([{"messages": TURNS * 3}] * 100)
    best = min(_seconds(rows) for _ in range(5))
    assert best < 0.05


def _seconds(rows):
    start = time.perf_counter()
    check_rows(rows)
    return time.perf_counter() - start
