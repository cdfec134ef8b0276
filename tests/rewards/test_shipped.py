"""The rewards that come with the library. Numbers called TRL's are what TRL 1.16 (with math-verify 0.9) gives for the same."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from burnish import rewards
from burnish.rewards.exact import exact
from burnish.rewards.length import cosine, scaled, soft_overlong
from burnish.rewards.names import SHIPPED, TRL_NAMES, reward_sources
from burnish.rewards.numeric import last_number, numeric
from burnish.rewards.repetition import repetition
from burnish.rewards.samples import RewardError, Sample
from burnish.rewards.think_format import think_answer_format, think_format


def sample(text="", tokens=(), **columns):
    return Sample(prompt="p", completion=text, completion_ids=np.array(tokens, dtype=int), finish_reason="stop", columns=columns)


def messages(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


# Accuracy

HALF = [
    r"My answer is \boxed{\frac{1}{2}}",
    r"\boxed{0.5}",
    "one half",
    r"$x = \frac12$",
    r"\boxed{1} and \boxed{\frac{2}{4}}",
    r"\boxed{50\%}",
]
HALF_TRL = [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
THOUGHTS = [
    r"<think> a </think> The final answer is \boxed{\frac{1}{2}}", r"<think> \boxed{\frac12} </think> \boxed{\frac{1}{3}}",
    r"<think> \boxed{\frac{1}{2}} but no end", r"a</think>b</think>\boxed{\frac{1}{2}}",
]  # fmt: skip
THOUGHTS_TRL = [1.0, 0.0, 0.0, 1.0]


def test_accuracy():
    pytest.importorskip("math_verify")
    assert rewards.accuracy_reward(messages(*HALF), [r"\frac{1}{2}"] * 6) == HALF_TRL
    assert rewards.accuracy_reward(messages(r"\boxed{2}", r"\boxed{x^2+2x+1}"), ["no number at all", "$(x+1)^2$"]) == [None, 1.0]
    assert rewards.accuracy_reward([r"\boxed{2}"] * 3, ["2", 2, None]) == [1.0, 1.0, None]  # texts and numbers, which TRL's does not take
    (one,) = reward_sources("accuracy")
    assert [one.function(sample(text, solution=r"\frac{1}{2}")) for text in HALF] == HALF_TRL


def test_reasoning_accuracy():
    pytest.importorskip("math_verify")
    logged = {}
    assert rewards.reasoning_accuracy_reward(messages(*THOUGHTS), [r"\frac{1}{2}"] * 4, log_extra=logged.__setitem__) == THOUGHTS_TRL
    assert logged["answer_parsed"][2] == "[incomplete reasoning]"
    ends = ["</think>", "[END]"]
    assert rewards.reasoning_accuracy_reward(messages(r"\boxed{2} [END] \boxed{3}"), ["3"], reasoning_delimiters=ends) == [1.0]
    (one,) = reward_sources("reasoning_accuracy")
    assert [one.function(sample(text, solution=r"\frac{1}{2}")) for text in THOUGHTS] == THOUGHTS_TRL


def test_accuracy_that_takes_too_long_is_no_number(monkeypatch):
    pytest.importorskip("math_verify")
    from math_verify.errors import TimeoutException

    def slow(*_, **__):
        raise TimeoutException

    monkeypatch.setattr("math_verify.verify", slow)
    with pytest.raises(TimeoutException):
        rewards.accuracy_reward([r"\boxed{2}"], ["2"])


def test_cosine():
    """At half of max_len cos(π/2) = 0: the mean of both ends, 0.75. At a quarter (1 + cos(π/4))/2 = 0.8536: 0.5 + 0.5·0.8536 = 0.9268."""
    pytest.importorskip("math_verify")
    texts, lengths = messages(*[r"\boxed{1}", r"\boxed{2}"] * 4), (0, 0, 25, 25, 50, 50, 150, 150)
    trl = [1.0, -1.0, 0.9267766952966369, -0.9267766952966369, 0.75, -0.75, 0.5, -0.5]
    got = rewards.get_cosine_scaled_reward(max_len=100)(texts, ["1"] * 8, [[1] * n for n in lengths])
    assert got == pytest.approx(trl, abs=1e-12)
    got = rewards.get_cosine_scaled_reward(100, -10, 0, 1, 2)(texts[:2], ["1"] * 2, [[1] * 10] * 2)
    assert got == pytest.approx([1.9755282581475768, -9.755282581475768], abs=1e-12)
    of_one = cosine(max_len=100)
    assert of_one(sample(r"\boxed{1}", [1] * 50, solution="1")) == pytest.approx(0.75)
    assert of_one(sample(r"\boxed{1}", [1] * 50, solution="nothing")) is None


def test_the_schedule_of_cosine():
    assert [scaled(True, n, 4) for n in (0, 2, 4, 9)] == pytest.approx([1.0, 0.75, 0.5, 0.5])
    assert [scaled(False, n, 4) for n in (0, 2, 4, 9)] == pytest.approx([-1.0, -0.75, -0.5, -0.5])


# Texts and numbers


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("<think>hm</think> The  Seine.", "the Seine", 1.0),
        ("It is <answer>\nParis\n</answer> of course", "paris", 1.0),
        ("<answer>Rome</answer> no, <answer>Paris</answer>", "Paris", 1.0),
        ("Paris, I think", "Paris", 0.0),
        ("４", ["four", "4"], 1.0),  # noqa: RUF001  a wide digit, which NFKC makes a plain one
        ("4.0", 4, 0.0),
        ("4", 4, 1.0),
        ("None", None, None),
        ("", "Paris", 0.0),
    ],
)
def test_exact(text, answer, expected):
    assert exact()(sample(text, answer=answer)) == expected


def test_exact_with_case_and_another_column():
    assert exact(ignore_case=False)(sample("paris", answer="Paris")) == 0.0
    assert exact(answer="city")(sample("paris", city="Paris")) == 1.0
    with pytest.raises(RewardError, match="^needs the column 'answer', which the row does not have$"):
        exact()(sample("paris"))


NUMBERS = {
    "so 1234": 1234, "$1,234.00": 1234, "1.234e3": 1234, "5-3": 3, "-4": -4, "(-4)": -4, "(x)-4": 4, "1, 2, 3": 3, "1,234,567": 1234567,
    "3.": 3, "x = -.5": -0.5, "1/2": 2, "12,34": 34, "= \N{MINUS SIGN}3": -3, "10\N{MINUS SIGN}12": 12, "-1,234.5e-6": -0.0012345,
    "#### 72": 72, "v2": 2, "+7": 7, "1e400": math.inf,
}  # fmt: skip


@pytest.mark.parametrize(("text", "number"), NUMBERS.items())
def test_the_last_number(text, number):
    assert last_number(text) == number


def test_numeric():
    """A difference of 1e-6, or of that share: 1000000.5 is as good as 1000000."""
    reward = numeric()
    given = [
        ("It is 4.", "4"),
        ("5", 4),
        ("none", "4"),
        ("4", "none"),
        ("4.0000009", 4.0),
        ("4.00001", 4),
        ("1000000.5", "1,000,000"),
        ("1", True),
    ]
    assert [reward(sample(text, answer=answer)) for text, answer in given] == [1.0, 0.0, 0.0, None, 1.0, 0.0, 1.0, None]
    assert numeric(tolerance=0.1)(sample("3.9", answer=4)) == 1.0


# Form

FORMS = {
    "<think>\nThis is my reasoning.\n</think>\nThis is my answer.": 1.0,
    "<think>\nThis is my reasoning.\nThis is my answer.": 0.0,
    " <think>a</think>b": 0.0,
    "<think>a<think>b</think>c": 0.0,
    "<think></think>": 1.0,
    "<think>a</think>b</think>": 1.0,
    "a</think>b": 0.0,
    "<think>a</think><think>": 0.0,
}
"""And TRL's rewards of them."""


def test_think_format():
    assert rewards.think_format_reward(messages(*FORMS)) == list(FORMS.values())
    assert [think_format()(sample(text)) for text in FORMS] == list(FORMS.values())
    opened = think_format(prompt_opens=True)
    assert [opened(sample(text)) for text in ("a</think>b", "<think>a</think>b", "a")] == [1.0, 0.0, 0.0]


def test_think_answer_format():
    reward = think_answer_format()
    right = ["<think>a</think><answer>b</answer>", "<think>a\n</think>\n\n<answer>\nb</answer>\n"]
    wrong = [
        "<think>a</think>b", "<think>a</think>so <answer>b</answer>", "<think>a</think><answer>b</answer>c", "<answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>", "<think>a<answer>b</think></answer>", "a</think><answer>b</answer>",
    ]  # fmt: skip
    assert [reward(sample(text)) for text in right + wrong] == [1.0] * 2 + [0.0] * 7
    assert think_answer_format(prompt_opens=True)(sample(wrong[-1])) == 1.0


# Length and repetition


def test_soft_overlong():
    """DAPO, eq. 13, with L_max = 100 and L_cache = 20: of 81 tokens (80 - 81)/20 = -0.05, of 90 -0.5, of 100 -1. TRL's are the same."""
    lengths, trl = (0, 80, 81, 90, 100, 101, 500), [0.0, 0.0, -0.05, -0.5, -1.0, -1.0, -1.0]
    assert rewards.get_soft_overlong_punishment(100, 20)([[1] * n for n in lengths]) == trl
    assert rewards.get_soft_overlong_punishment(100, 0)([[1] * n for n in (99, 100, 101)]) == [0.0, 0.0, -1.0]
    reward = soft_overlong(max_completion_len=100, soft_punish_cache=20)
    assert [reward(sample("", [1] * n)) for n in lengths] == trl


def test_repetition():
    """5 5 5 5 5 has four pairs, of which one is unique: -(1 - 1/4). 1 2 1 2 1 has four, of which two are: -(1 - 2/4). 1 2 3 1 2 3 1 has
    five triples, of which three are: -(1 - 3/5). TRL's are the same."""
    given = [[1, 2, 3, 4], [5] * 5, [1, 2, 1, 2, 1], [], [1], [7, 7]]
    assert rewards.get_repetition_penalty_reward(2)(given) == [0.0, -0.75, -0.5, 0.0, 0.0, 0.0]
    assert rewards.get_repetition_penalty_reward()([[1, 2, 3, 1, 2, 3, 1], [1, 2]]) == pytest.approx([-0.4, 0.0], abs=1e-15)
    assert repetition(ngram_size=1, max_penalty=-2.0)(sample("", [1, 1, 2, 2])) == -1.0
    with pytest.raises(RewardError, match=r"^ngram_size=0 must be at least 1, and max_penalty=-1.0 at most 0\.$"):
        repetition(ngram_size=0)


# All


def test_every_shipped_reward_is_there_and_of_one_completion():
    needed = {
        "soft_overlong": {"max_completion_len": 9, "soft_punish_cache": 3},
        "cosine": {"max_len": 9},
    }
    for name in [*SHIPPED, *TRL_NAMES]:
        options = needed.get(TRL_NAMES.get(name, name), {})
        try:
            (one,) = reward_sources(name, {name: options})
        except RewardError as error:
            assert "pip install 'burnish[math]'" in str(error)  # noqa: PT017
        else:
            assert (one.name, one.of) == (name, "sample")


# reasoning-gym


def test_tasks_of_reasoning_gym():
    """A right answer 1; a wrong one, which chain_sum gives 0; and one of countdown's that uses other numbers, which it gives 0.05."""
    pytest.importorskip("reasoning_gym")
    from burnish.rewards.reasoning_gym import rows

    (row, other) = rows("chain_sum", 2, seed=1, max_terms=3)
    assert row == rows("chain_sum", 1, seed=1, max_terms=3)[0] != other
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == row["question"]
    columns = {name: row[name] for name in ("question", "answer", "metadata")}
    assert all(isinstance(cell, str) for cell in columns.values())
    (one,) = reward_sources("reasoning_gym:chain_sum")
    assert (one.name, one.of) == ("chain_sum", "sample")
    texts = [f"<think>7</think> <answer> {row['answer']} </answer>", f"<think>7</think>{row['answer']}", "<answer>x</answer>"]
    assert [one.function(sample(text, **columns)) for text in texts] == [1.0, 1.0, 0.0]
    (countdown,) = rows("countdown", 1, seed=1)
    (score,) = reward_sources("reasoning_gym:countdown")
    assert score.function(sample("1 + 1", **{name: countdown[name] for name in columns})) == 0.05


def test_metadata_keeps_its_tuples():
    """rearc compares boards that are tuples, and JSON has none."""
    pytest.importorskip("reasoning_gym")
    from burnish.rewards.reasoning_gym import _marked, _unmarked, rows

    given = {"a": (1, [2, (3,)]), "b": {"c": ()}}
    assert json.loads(json.dumps(_marked(given)), object_hook=_unmarked) == given
    (row,) = rows("rearc", 1, seed=3)
    (one,) = reward_sources("reasoning_gym:rearc")
    assert one.function(sample(row["answer"], answer=row["answer"], metadata=row["metadata"])) == 1.0


def test_tasks_that_there_are_not():
    pytest.importorskip("reasoning_gym")
    from burnish.rewards.reasoning_gym import rows

    with pytest.raises(RewardError, match=r"^reasoning-gym has no task 'chain_some'; it has ab, "):
        reward_sources("reasoning_gym:chain_some")
    with pytest.raises(RewardError, match=r"^reasoning-gym's 'chain_sum' does not take \{'terms': 3\} \("):
        rows("chain_sum", 1, terms=3)
