"""What the model said: calls in each format, and what was meant as one and cannot be read."""

import numpy as np
import pytest

from burnish.rollout.calls import TurnReader, read_calls
from burnish.rollout.tools import Call, schemas_of
from tests.rollout.calculator import calculate
from tests.rollout.scripted import END, chatml

(SCHEMA,) = schemas_of([calculate])
TOOLS = {"calculate": SCHEMA}
TWO = Call(name="calculate", arguments={"expression": "1 + 1"})
JSON = '{"name": "calculate", "arguments": {"expression": "1 + 1"}}'


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"<tool_call>\n{JSON}\n</tool_call>", ""),
        (f"Let me see.\n<tool_call>{JSON}</tool_call>\n", "Let me see."),
        ("<tool_call>\n<function=calculate>\n<parameter=expression>\n1 + 1\n</parameter>\n</function>\n</tool_call>", ""),
        ('{"name": "calculate", "parameters": {"expression": "1 + 1"}}', ""),
        ('<|python_tag|>{"name": "calculate", "parameters": {"expression": "1 + 1"}}', ""),
        (f"[TOOL_CALLS] [{JSON}]", ""),
        ('[TOOL_CALLS]calculate[ARGS]{"expression": "1 + 1"}', ""),
        ('{"name": "calculate", "arguments": "{\\"expression\\": \\"1 + 1\\"}"}', ""),
        (f"I call it:\n```json\n{JSON}\n```\n", "I call it:"),
    ],
)
def test_formats(text, content):
    said = read_calls(text, TOOLS)
    assert said.calls == (TWO,)
    assert said.malformed == ()
    assert said.message["content"] == content
    assert said.message["tool_calls"] == [{"type": "function", "function": {"name": "calculate", "arguments": {"expression": "1 + 1"}}}]


@pytest.mark.parametrize(
    "text", [f"<tool_call>{JSON}</tool_call>\n<tool_call>{JSON}</tool_call>", f"{JSON}; {JSON}", f"[TOOL_CALLS][{JSON}, {JSON}]"]
)
def test_several(text):
    assert read_calls(text, TOOLS).calls == (TWO, TWO)


def test_arguments_of_xml_have_the_types_of_the_schema():
    """ "7" is a number where the schema says so, and text where it says so."""
    schema = {"function": {"name": "f", "parameters": {"properties": {"text": {"type": "string"}, "number": {"type": "integer"}}}}}
    body = "<parameter=text>7</parameter><parameter=number>7</parameter><parameter=other>[1, 2]</parameter>"
    (call,) = read_calls(f"<tool_call><function=f>{body}</function></tool_call>", {"f": schema}).calls
    assert call.arguments == {"text": "7", "number": 7, "other": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 2.",
        '{"answer": 2}',
        "[1, 2]",
        '{"name": "Ada", "born": 1815}',
        '```json\n{"name": "Ada", "parameters": 3, "x": 1}\n```',
        "{ set }",
        "",
    ],
)
def test_what_is_no_call(text):
    said = read_calls(text, TOOLS)
    assert (said.calls, said.malformed, said.message) == ((), (), {"role": "assistant", "content": text.strip()})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            '<tool_call>{"name": "calculate", "arguments": {"expression": }}</tool_call>',
            "it is not valid JSON (Expecting value at character",
        ),
        (f"<tool_call>{JSON}", "it has no </tool_call>"),
        ("<tool_call></tool_call>", "it is empty"),
        ('<tool_call>{"arguments": {}}</tool_call>', "it has no name"),
        ('<tool_call>{"name": "calculate", "arguments": [1]}</tool_call>', "its arguments are a list, and not an object"),
        (f"<tool_call>{JSON} {JSON}</tool_call>", "it holds 2 JSON values"),
        ("<tool_call>[]</tool_call>", "it is a list, and not an object"),
        ('{"name": "calculate", "parameters": {"expression": "1', "it is not valid JSON (Unterminated string"),
        ("[TOOL_CALLS] oh", "it is not valid JSON"),
    ],
)
def test_malformed(text, why):
    """No call is made, not even those that can be read; the text stays as it is."""
    said = read_calls(text, TOOLS)
    assert said.calls == ()
    assert said.message == {"role": "assistant", "content": text.strip()}
    (sentence,) = said.malformed
    assert sentence.startswith(f"error: the tool call cannot be read: {why}")
    assert sentence.endswith('write {"name": "...", "arguments": {...}}')


def test_a_tool_that_is_not_there_is_still_called():
    """So that the model is told; a tool's name decides only where the text might be something else."""
    (call,) = read_calls('{"name": "search", "parameters": {"query": "x"}}', TOOLS).calls
    assert call.name == "search"


def reader(text, *, before="", tools=(SCHEMA,), template=None):
    tokenizer = chatml()
    tokenizer.response_template = template

    def ids(one):
        return np.array(tokenizer.encode(one, add_special_tokens=False), np.int32)

    return TurnReader(tokenizer)(ids(text), ids(before), tools)


def test_nothing_in_the_reasoning_is_a_call():
    said = reader(f"<think>\n<tool_call>{JSON}</tool_call>?\n</think>\n\nNo.{END}")
    assert said.calls == ()
    assert said.message == {"role": "assistant", "content": "No.", "reasoning_content": f"<tool_call>{JSON}</tool_call>?"}


def test_reasoning_that_the_prompt_began():
    said = reader(f"so\n</think>\n\n<tool_call>{JSON}</tool_call>{END}", before="<|im_start|>assistant\n<think>\n")
    assert (said.message["reasoning_content"], said.message["content"], said.calls) == ("so", "", (TWO,))


@pytest.mark.parametrize(
    ("text", "before"), [(f"<think>\nso <tool_call>{JSON}</tool_call>", ""), (f"so <tool_call>{JSON}</tool_call>", "<think>\n")]
)
def test_reasoning_that_never_ends_is_all_there_is(text, before):
    said = reader(text, before=before)
    assert (said.message["content"], said.calls, said.malformed) == ("", (), ())


def test_without_tools_nothing_is_a_call():
    text = f"<tool_call>{JSON}</tool_call>"
    assert reader(text + END, tools=()).message == {"role": "assistant", "content": text}


QWEN = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close_pattern": r"</think>\s*", "content": "text"},
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}


def test_the_tokenizers_own_template_decides():
    said = reader(f"<think>hm</think>\n<tool_call>{JSON}</tool_call>{END}", before="<|im_start|>assistant\n", template=QWEN)
    assert said.calls == (TWO,)
    assert (said.message["reasoning_content"], said.message["content"]) == ("hm", "")
    said = reader('<tool_call>{"name": }</tool_call>' + END, before="<|im_start|>assistant\n", template=QWEN)
    assert said.calls == ()
    assert said.malformed[0].startswith("error: the answer cannot be read (")
