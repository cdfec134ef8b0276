"""The embedded model and its task: sums and differences of two-digit numbers, asked in words, with answers that can be checked.

A question is drawn from a *fact*, an unordered pair of addends {a, b}: "a plus b", "b plus a", "a + b minus a" and
"a + b minus b" all belong to one fact. A fact is held out or not by a hash of the pair alone, so neither the rows of
the train split nor the text that the model was made from (`tools/make_demo_model.py`) hold any fact of the test split.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

Split = Literal["train", "test"]
Forms = Literal["shown", "new", "all"]
Sign = Literal["+", "-"]

NAMES = ("Ada", "Ben", "Eva", "Leo", "Mia", "Sam", "Tom", "Zoe")
THINGS = ("apples", "books", "coins", "eggs", "marbles", "pears", "shells", "stamps")
SHOWN: dict[Sign, tuple[str, ...]] = {
    "+": (
        "What is {x} plus {y}?",
        "{x} + {y} = ?",
        "Add {x} and {y}.",
        "Take {x} and add {y}.",
        "What is the sum of {x} and {y}?",
        "{name} has {x} {things} and gets {y} more. How many {things} does {name} have now?",
        "{name} has {x} {things}. {other} has {y}. How many {things} do they have in all?",
    ),
    "-": (
        "What is {x} minus {y}?",
        "{x} - {y} = ?",
        "Subtract {y} from {x}.",
        "Take {y} away from {x}.",
        "What is the difference between {x} and {y}?",
        "{name} had {x} {things} and gave away {y}. How many {things} does {name} have left?",
        "{name} has {x} {things} and {y} of them are lost. How many are left?",
    ),
}
"""The forms of questions that the demo's fine-tuning demonstrates."""
NEW: dict[Sign, tuple[str, ...]] = {
    "+": (
        "How much is {x} plus {y}?",
        "{x} plus {y} is what?",
        "Now add {x} to {y}.",
        "What is {x} and {y} together?",
        "The sum of {x} and {y} is?",
        "How many are {x} {things} and {y} {things}?",
    ),
    "-": (
        "How much is {x} minus {y}?",
        "From {x} subtract {y}.",
        "How much more is {x} than {y}?",
        "The difference of {x} and {y} is?",
        "{name} has {x} {things}. {y} are gone. How many are left?",
        "{name} has {x} {things} and {other} has {y}. How many more does {name} have?",
    ),
}
"""Forms that it does not demonstrate. Fine-tuned on the others, the model answers about half of these: what a reward can build on."""
FORMS: dict[Forms, dict[Sign, tuple[str, ...]]] = {
    "shown": SHOWN,
    "new": NEW,
    "all": {sign: SHOWN[sign] + NEW[sign] for sign in ("+", "-")},
}


def load_path() -> Path:
    """The folder of the embedded model and its tokenizer: a ``model_name_or_path`` like any other."""
    return Path(__file__).parent / "model"


def split_of(a: int, b: int) -> Split:
    """The split of the fact {a, b}: about a fifth of the 4,095 facts are held out.

    Worked example: ``split_of(47, 38) == split_of(38, 47)``.
    """
    fact = f"{min(a, b)}+{max(a, b)}".encode()
    return "test" if hashlib.sha256(fact).digest()[0] < 51 else "train"


def draw_fact(rng: random.Random, split: Split) -> tuple[int, int]:
    """Two addends from 10 to 99, in either order, whose fact is in ``split``."""
    while True:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if split_of(a, b) == split:
            return a, b


def sum_steps(a: int, b: int) -> str:
    """a + b as one does it in one's head, tens first: ``sum_steps(47, 38) == "47+38=77+8=85"``."""
    return f"{a}+{b}={a + b // 10 * 10}+{b % 10}={a + b}"


def difference_steps(c: int, b: int) -> str:
    """c - b, tens first: ``difference_steps(85, 38) == "85-38=55-8=47"``."""
    return f"{c}-{b}={c - b // 10 * 10}-{b % 10}={c - b}"


def make_rows(n: int, seed: int, split: Split, forms: Forms = "shown") -> list[dict[str, Any]]:
    """``n`` questions with their worked answers, the same for the same arguments on every machine.

    About half are sums, half differences. A row is ``{"messages": [{"role": "user", "content": "Add 47 and 38."},
    {"role": "assistant", "content": "47+38=77+8=85"}], "answer": "85"}``.

    Raises:
        ValueError: a split or forms that there are not.
    """
    if split not in get_args(Split) or forms not in FORMS:
        raise ValueError(
            f"make_rows has no {forms!r} forms of split {split!r}; forms are {', '.join(FORMS)}, splits {', '.join(get_args(Split))}."
        )
    rng = random.Random(f"{split} {seed}")
    return [_make_row(rng, split, FORMS[forms]) for _ in range(n)]


def _make_row(rng: random.Random, split: Split, forms: Mapping[Sign, Sequence[str]]) -> dict[str, Any]:
    a, b = draw_fact(rng, split)
    sign: Sign = rng.choice(("+", "-"))
    x, steps = (a, sum_steps(a, b)) if sign == "+" else (a + b, difference_steps(a + b, b))
    name, other = rng.sample(NAMES, 2)
    content = rng.choice(forms[sign]).format(x=x, y=b, name=name, other=other, things=rng.choice(THINGS))
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": steps}]
    return {"messages": messages, "answer": steps.rpartition("=")[2]}


def make_pairs(n: int, seed: int, split: Split, forms: Forms = "shown") -> list[dict[str, Any]]:
    """The questions of `make_rows` with two answers each: the right one is chosen, one with a mistake in it rejected.

    A row is ``{"prompt": [{"role": "user", "content": "Add 47 and 38."}], "chosen": [{"role": "assistant", "content":
    "47+38=77+8=85"}], "rejected": [{"role": "assistant", "content": "47+38=77+8=75"}]}``.
    """
    rng = random.Random(f"mistakes {split} {seed}")
    pairs = []
    for row in make_rows(n, seed, split, forms):
        question, right = row["messages"]
        pairs.append({"prompt": [question], "chosen": [right], "rejected": [right | {"content": with_mistake(right["content"], rng)}]})
    return pairs


def with_mistake(steps: str, rng: random.Random) -> str:
    """A wrong answer: half the time the working of the other sign, else one that is a ten off at the end.

    Worked example: "38+47=78+7=85" becomes "47-38=17-8=9" (of two numbers the smaller one is taken away), "38+47=78+7=75" or "…=95".
    """
    question, middle, result = steps.split("=")
    if rng.random() < 0.5:
        return f"{question}={middle}={int(result) + rng.choice((-10, 10))}"
    sign = "+" if "+" in question else "-"
    x, y = (int(number) for number in question.split(sign))
    return difference_steps(max(x, y), min(x, y)) if sign == "+" else sum_steps(x, y)


def score(answer_text: str, row: Mapping[str, Any]) -> bool:
    """True when the last integer in ``answer_text`` is the row's answer, digit for digit ("085" is not 85)."""
    integers = re.findall(r"(?<!\d)-\d+|\d+", answer_text)
    return bool(integers) and integers[-1] == row["answer"]
