"""Conversations and tools in every shape in which rows hold them."""

import pytest

from burnish.data.chat import ChatTemplateError
from burnish.data.messages import to_messages, to_tools
from tests.data.small_templates import HI, assistant, result, system


def test_messages_in_every_spelling():
    turns = [
        {"from": "system", "value": "Be.", "role": None},
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": '{"name": "sun", "arguments": {"at": 12}}'},
        {"from": "observation", "value": "up"},
        {"from": "gpt", "value": "Yo", "weight": 1},
    ]
    assert to_messages(turns) == [
        system("Be."),
        HI,
        assistant("", tool_calls=[{"type": "function", "function": {"name": "sun", "arguments": {"at": 12}}}]),
        result("up"),
        assistant("Yo", weight=1),
    ]
    arrow = [assistant(None, tool_calls=[{"id": None, "function": {"name": "sun", "arguments": {"at": 12, "in": None}}}], reasoning="hm")]
    assert to_messages(arrow) == [
        {
            "thinking": "hm",
            "role": "assistant",
            "tool_calls": [{"function": {"name": "sun", "arguments": {"at": 12}}}],
            "reasoning": "hm",
            "reasoning_content": "hm",
        }
    ]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ("Hi", "Message 0 is a str; give a dict with role and content, or with from and value."),
        ({"text": "Hi", "content": None}, "Message 0 has the keys ['text']; give role and content, or from and value."),
        (
            {"from": "bing", "value": "Hi"},
            "Message 0 is from 'bing'; known are human, user, gpt, assistant, system, tool, observation, function_response, function_call.",
        ),
        (
            {"from": "function_call", "value": "sun()"},
            "Message 0 is a function_call that is not valid JSON (Expecting value); give name and arguments.",
        ),
        ({"role": 3}, "Message 0 has the role 3; give a string."),
    ],
)
def test_messages_in_no_known_spelling(turn, expected):
    with pytest.raises(ChatTemplateError) as error:
        to_messages([turn])
    assert str(error.value) == expected


def test_tools_in_every_spelling():
    def sun(at: int):
        """
        Where the sun is.

        Args:
            at: The hour.
        """

    schema = {
        "type": "function",
        "function": {
            "name": "sun",
            "description": "Where the sun is.",
            "parameters": {"type": "object", "properties": {"at": {"type": "integer", "description": "The hour."}}, "required": ["at"]},
        },
    }
    assert to_tools([sun]) == [schema]
    assert to_tools('[{"name": "sun"}]') == [{"name": "sun"}]
    assert to_tools([{"name": "sun", "strict": None}]) == [{"name": "sun"}]
    assert to_tools(None) is to_tools([]) is to_tools("[]") is None
    for tools, expected in (
        ("sun", "The tools are not valid JSON (Expecting value); give a list of JSON schemas."),
        ({"name": "sun"}, "The tools are a dict; give a list of JSON schemas or functions."),
        ([3], "A tool is a int; give a JSON schema or a function."),
        ([lambda at: at], "No JSON schema can be made of a tool: Cannot generate JSON schema for <lambda> because it has no docstring!."),
    ):
        with pytest.raises(ChatTemplateError) as error:
            to_tools(tools)
        assert str(error.value) == expected
