"""Which functions are called how, and with what; and the names that stand for them."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest

from burnish.rewards.contract import Book, TrainerState, reward_func
from burnish.rewards.names import ModelSource, reward_sources, weights_of
from burnish.rewards.samples import RewardError, Sample
from tests.models.families import tiny_scorer


def sample(completion="ab", **columns):
    return Sample(prompt="p", completion=completion, completion_ids=np.array([4, 5]), finish_reason="stop", columns=columns)


class Scorer:
    async def __call__(self, completions, **columns):
        return [len(one) for one in completions]


class Named:
    __name__ = "repetition_penalty_reward"

    def __call__(self, completion_ids, **columns):
        return [0.0]


@pytest.mark.parametrize(
    ("function", "of"),
    [
        (lambda sample: 1.0, "sample"),
        (lambda answer, log_metric=None: 1.0, "sample"),
        (lambda x, /: 1.0, "sample"),
        (lambda completions: [1.0], "group"),
        (lambda completion_ids: [1.0], "group"),
        (lambda prompts, completions, answer: [1.0], "group"),
        (lambda x, **columns: [1.0], "group"),
        (lambda *, answer: [1.0], "group"),
        (lambda completions=None: [1.0], "group"),
        (functools.partial(lambda factor, sample: factor, 2.0), "sample"),
        (Scorer(), "group"),
    ],
)
def test_what_a_function_is_called_with(function, of):
    assert reward_func(function).of == of


def test_a_group_is_given_what_it_asks_for():
    """Both of "ab" and "c", whose row has the columns answer and tools."""
    seen = {}
    book = Book(samples=2)
    group = [sample("ab", answer="4", tools=None), sample("c", answer="4", tools=None)]
    reward_func(lambda completions, answer: seen.update(completions=completions, answer=answer))(group, 3, book)
    assert seen == {"completions": ["ab", "c"], "answer": ["4", "4"]}
    seen.clear()
    reward_func(lambda **given: seen.update(given))(group, 3, book)
    assert seen == {
        "prompts": ["p", "p"], "completions": ["ab", "c"], "completion_ids": [[4, 5], [4, 5]], "answer": ["4", "4"], "tools": [None, None],
        "trainer_state": TrainerState(global_step=3), "log_metric": book.log_metric, "log_extra": book.log_extra,
    }  # fmt: skip


def test_a_column_that_has_the_name_of_something_else_does_not_hide_it():
    group = [sample(prompts="no", trainer_state="no")]
    assert reward_func(lambda prompts, trainer_state: [prompts, trainer_state.global_step])(group, 3, Book(samples=1)) == [["p"], 3]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda a, b, /: 1.0,
            r"^The reward '<lambda>' takes 'a' by position only; give it one parameter, a sample, or the parameters prom",
        ),
        (lambda *a: 1.0, r"^The reward '<lambda>' takes nothing by name; "),
        (lambda: 1.0, r"^The reward '<lambda>' takes nothing by name; "),
        (lambda completions, environments: [1.0], r"^The reward '<lambda>' needs 'environments', which live in another process; "),
        (min, r"^The reward 'min' has no signature to be read; wrap it in a function of Python's\.$"),
    ],
)
def test_what_cannot_be_called(function, said):
    with pytest.raises(RewardError, match=said):
        reward_func(function)


def test_log_extra_has_an_entry_for_each_completion():
    with pytest.raises(ValueError, match=r"log_extra\('x'\) was given 1 values for 2 completions"):
        Book(samples=2).log_extra("x", [1])


# Names


def test_names_are_the_functions_own_and_differ():
    def f(sample):
        return 1.0

    sources = reward_sources([f, functools.partial(f), Named(), Scorer(), "exact", "exact", "think_format_reward"])
    assert [one.name for one in sources] == ["f", "f_2", "repetition_penalty_reward", "Scorer", "exact", "exact_2", "think_format_reward"]
    assert weights_of(sources[:2], None) == [1.0, 1.0]
    assert weights_of(sources[:2], [2, 0.5]) == [2.0, 0.5]
    with pytest.raises(RewardError, match=r"^reward_weights has 1 weights for 2 rewards; give one for each\.$"):
        weights_of(sources[:2], [1.0])


def test_a_lone_reward_is_a_list_of_one():
    assert [one.name for one in reward_sources(Scorer())] == ["Scorer"]


def test_functions_of_modules_and_files(tmp_path, monkeypatch):
    """Those in the working directory, too, which an installed command does not have in its path."""
    (tmp_path / "my_rewards.py").write_text("def half(sample):\n    return 0.5\n\nNUMBER = 3\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    for name in ("my_rewards:half", "my_rewards.half", "my_rewards.py:half", f"{tmp_path}/my_rewards.py:half"):
        (one,) = reward_sources(name)
        assert (one.name, one.of, one([sample()], 0, Book(samples=1))) == ("half", "sample", [0.5])
    for name, said in {
        "my_rewards:whole": r"^The reward 'my_rewards:whole' could not be imported \(",
        "nowhere.whole": r"^The reward 'nowhere.whole' could not be imported \(No module named 'nowhere'\)\.$",
        "my_rewards:NUMBER": r"^The reward 'my_rewards:NUMBER' is a int; name a function\.$",
        "nowhere.py:half": r"^There is no file 'nowhere.py' to take a reward from\.$",
        "broken.py:half": r"^The file 'broken.py' could not be run to take a reward from it \(ZeroDivisionError: division by zero\)\.$",
        "my_rewards.py": r"^'my_rewards.py' names a file; name a function in it, as 'my_rewards.py:function'\.$",
        "acuracy": r"^There is no reward 'acuracy'; use 'accuracy', the nearest\.$",
        "zzz": r"^There is no reward 'zzz'; there are accuracy, code, cosine, ",
    }.items():
        with pytest.raises(RewardError, match=said):
            reward_sources(name)


def test_options_of_shipped_rewards():
    (one,) = reward_sources(["soft_overlong"], {"soft_overlong": {"max_completion_len": 2, "soft_punish_cache": 1}})
    assert one([sample()], 0, Book(samples=1)) == [-1.0]
    (one,) = reward_sources(
        "get_soft_overlong_punishment", {"get_soft_overlong_punishment": {"max_completion_len": 4, "soft_punish_cache": 4}}
    )
    assert one([sample()], 0, Book(samples=1)) == [-0.5]
    with pytest.raises(RewardError, match=r"^The reward 'numeric' does not take reward_kwargs=\{'tol': 1\} \(numeric\(\) got an "):
        reward_sources("numeric", {"numeric": {"tol": 1}})
    with pytest.raises(RewardError, match=r"^The reward 'soft_overlong' does not take reward_kwargs=\{\} \(.*missing 2 required keyword"):
        reward_sources("soft_overlong")
    with pytest.raises(RewardError, match=r"^reward_kwargs has options of 'exact', which is not in reward_funcs or takes none; leave them"):
        reward_sources("numeric", {"exact": {}})
    with pytest.raises(RewardError, match=r"^soft_punish_cache=9 is not between 0 and max_completion_len=2; "):
        reward_sources("soft_overlong", {"soft_overlong": {"max_completion_len": 2, "soft_punish_cache": 9}})


def test_models_and_what_is_nothing(tmp_path):
    model = tiny_scorer("llama")
    sources = reward_sources([model, "org/some-model", str(tmp_path)])
    assert sources == [
        ModelSource(name="LlamaForSequenceClassification", model=model),
        ModelSource(name="some-model", model="org/some-model"),
        ModelSource(name=tmp_path.name, model=str(tmp_path)),
    ]
    for nothing in (None, []):
        with pytest.raises(RewardError, match=r"^There is no reward to learn from; give reward_funcs a function, a name, or a list of "):
            reward_sources(nothing)
    with pytest.raises(RewardError, match=r"^A reward is a function, a name or a model, and reward_funcs has 3\.$"):
        reward_sources([3])
