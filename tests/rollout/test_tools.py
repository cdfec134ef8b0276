"""Tools: what comes of a call, and that none is waited for longer than its deadline."""

import asyncio
import threading

import pytest

from burnish.data.template import ChatTemplateError
from burnish.rollout.tools import Call, Deadline, TookTooLongError, ToolError, run, schemas_of
from tests.rollout.calculator import calculate


async def slowly(text: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return text


def leaves():
    raise SystemExit(3)


def results(*calls, functions, seconds=30.0):
    return run([Call(name=name, arguments=given) for name, given in calls], functions, Deadline(seconds))


def test_schemas():
    """From the signature and the docstring."""
    (schema,) = schemas_of([calculate])
    assert schema["function"]["name"] == "calculate"
    assert schema["function"]["parameters"]["required"] == ["expression"]


def test_what_is_no_tool_is_refused():
    with pytest.raises(ToolError, match="There are 2 tools called 'calculate'"):
        schemas_of([calculate, calculate])
    with pytest.raises(ToolError, match="A tool is a str; give a function"):
        schemas_of(["calculate"])
    with pytest.raises(ChatTemplateError, match="No JSON schema can be made of a tool"):
        schemas_of([lambda expression: expression])


def test_results_in_the_order_of_calls():
    calls = ("slowly", {"text": "a", "seconds": 0.05}), ("calculate", {"expression": "6 * 7"})
    found = results(*calls, functions={"slowly": slowly, "calculate": calculate})
    assert [(one.name, one.content, one.failed) for one in found] == [("slowly", "a", False), ("calculate", "42", False)]


def test_coroutines_run_at_the_same_time():
    """Each waits until all have begun."""
    begun, all_there = [], asyncio.Event()

    async def together():
        begun.append(1)
        if len(begun) == 5:
            all_there.set()
        await all_there.wait()
        return "a"

    assert [one.content for one in results(*[("together", {})] * 5, functions={"together": together})] == ["a"] * 5


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("calculate", {"expression": "1 / 0"}, "error: ZeroDivisionError: division by zero"),
        ("calculate", {"expr": "1"}, "error: TypeError: calculate() got an unexpected keyword argument 'expr'"),
        ("subtract", {}, "error: there is no tool 'subtract'; there are: calculate, leaves"),
        ("leaves", {}, "error: RuntimeError: it raised SystemExit"),
    ],
)
def test_failures_are_told(name, given, said):
    (found,) = results((name, given), functions={"calculate": calculate, "leaves": leaves})
    assert (found.content, found.failed, found.abandoned) == (said, True, False)


def test_a_call_that_never_ends_is_abandoned():
    """The one after it is not made, for they may share what the first still holds."""
    stuck, called = threading.Event(), []
    found = results(("hang", {}), ("note", {}), functions={"hang": stuck.wait, "note": lambda: called.append(1)}, seconds=0.3)
    stuck.set()
    assert [one.content for one in found] == ["error: hang took more than 0.3 s", "error: not called, because an earlier call never ended"]
    assert [one.abandoned for one in found] == [True, False]
    assert not called


def test_a_coroutine_that_never_ends_is_cancelled_and_one_that_blocks_is_left_behind():
    """The loop is a new one afterwards."""
    cancelled, stuck = threading.Event(), threading.Event()

    async def hang():
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def block():
        stuck.wait()

    deadline = Deadline(0.3)
    for function in (hang, block):
        deadline.seconds = 0.3
        with pytest.raises(TookTooLongError, match=r"took more than 0\.3 s"):
            deadline(function)
        deadline.seconds = 30.0
        assert deadline(slowly, "a", 0.0) == "a"
    assert cancelled.wait(30.0)
    stuck.set()


def test_arguments_may_have_any_name():
    def tool(function, self, seconds):
        return f"{function}{self}{seconds}"

    assert Deadline(5.0)(tool, function="a", self="b", seconds="c") == "abc"
