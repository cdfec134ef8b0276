"""Environments: which of their methods are tools, and how a row comes to its instance. What they do in rollouts: `test_turns.py`."""

import asyncio

import pytest

from burnish.rewards.samples import Failure
from burnish.rollout.environments import Environments
from burnish.rollout.tools import Deadline, ToolError, schemas_of
from tests.rollout.calculator import Calculator, Sums, calculate

DEADLINE = Deadline(30.0)


def environments(factory, tools=()):
    return Environments(factory, schemas_of, tools)


class Methods:
    def reset(self, **row):
        """Not a tool."""

    def get_reward(self):
        """Not a tool."""
        return 1

    @property
    def broken(self):
        raise AssertionError("a property is not looked at")

    def plain(self, x: int) -> int:
        """
        Plain.

        Args:
            x: A number.
        """
        return x

    @staticmethod
    def static(x: int) -> int:
        """
        Static.

        Args:
            x: A number.
        """
        return x + 1

    @classmethod
    def of_class(cls, x: int) -> str:
        """
        Of the class.

        Args:
            x: A number.
        """
        return f"{cls.__name__} {x}"

    def _private(self):
        pass


class Heir(Methods):
    async def later(self, x: int) -> int:
        """
        Later.

        Args:
            x: A number.
        """
        await asyncio.sleep(0)
        return x + 2


def test_public_methods_are_tools():
    episode = environments(Heir, [calculate]).take({})
    assert sorted(episode.functions) == ["calculate", "later", "of_class", "plain", "static"]
    assert [schema["function"]["name"] for schema in episode.schemas] == list(episode.functions)
    assert [DEADLINE(episode.functions[name], x=1) for name in ("plain", "static", "of_class", "later")] == [1, 2, "Heir 1", 3]


def test_an_environment_of_steps_has_no_tools_of_its_own():
    assert environments(Sums).take({}).functions == {}


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ToolError, match="There are 2 tools called 'calculate'"):
        environments(Calculator, [calculate])


def test_a_reward_may_be_awaited_and_is_a_number():
    async def wait():
        return 0.5

    for answer, expected in ((wait, 0.5), (lambda: None, None), (lambda: True, 1.0)):
        made = environments(type("Made", (), {"reset": lambda self, **row: None, "get_reward": lambda self, answer=answer: answer()}))
        assert made.rewards(made.take({}), DEADLINE) == (expected,)


@pytest.mark.parametrize("reward", ["1", float("inf"), [1.0]])
def test_a_reward_that_is_no_number_is_a_failure(reward):
    made = environments(type("Made", (), {"reset": lambda self, **row: None, "get_reward": lambda self: reward}))
    ((failure,),) = [made.rewards(made.take({}), DEADLINE)]
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("Made raised ")


def test_nothing_that_says_what_a_completion_is_worth():
    made = environments(type("Made", (), {"reset": lambda self, **row: None}))
    assert (made.reward_names, made.rewards(made.take({}), DEADLINE)) == ((), ())
