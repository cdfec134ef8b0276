"""The embedded model and its task: sums and differences of two-digit numbers, asked in words, with answers that can be checked.

A question is drawn from a *fact*, an unordered pair of addends {a, b}: "a plus b", "b plus a", "a + b minus a" and
"a + b minus b" all belong to one fact. A fact is held out or not by a hash of the pair alone, so neither the rows of
the train split nor the text that the model was made from (`tools/make_demo_model.py`) hold any fact of the test split.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Split = Literal["train", "test"]

NAMES = ("Ada", "Ben", "Eva", "Leo", "Mia", "Sam", "Tom", "Zoe")
THINGS = ("apples", "books", "coins", "eggs", "marbles", "pears", "shells", "stamps")
SUM_QUESTIONS = (
    "What is {x} plus {y}?",
    "Add {x} and {y}.",
    "What is the sum of {x} and {y}?",
    "{name} has {x} {things} and gets {y} more. How many {things} does {name} have now?",
)
DIFFERENCE_QUESTIONS = (
    "What is {x} minus {y}?",
    "Subtract {y} from {x}.",
    "What is the difference between {x} and {y}?",
    "{name} had {x} {things} and gave away {y}. How many {things} does {name} have left?",
)


def load_path() -> Path:
    """The folder of the embedded model and its tokenizer: a ``model_name_or_path`` like any other."""
    return Path(__file__).parent / "model"


def split_of(a: int, b: int) -> Split:
    """The split of the fact {a, b}: about a fifth of all facts are held out.

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


def make_rows(n: int, seed: int, split: Split) -> list[dict[str, Any]]:
    """``n`` questions with their worked answers, the same for the same arguments on every machine.

    About half are sums, half differences. A row is ``{"messages": [{"role": "user", "content": "Add 47 and 38."},
    {"role": "assistant", "content": "47+38=77+8=85"}], "answer": "85"}``.

    Raises:
        ValueError: ``split`` is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise ValueError(f'make_rows has no split {split!r}; use "train" or "test".')
    rng = random.Random(f"{split} {seed}")
    return [_make_row(rng, split) for _ in range(n)]


def _make_row(rng: random.Random, split: Split) -> dict[str, Any]:
    a, b = draw_fact(rng, split)
    if rng.random() < 0.5:
        question, x, steps = rng.choice(SUM_QUESTIONS), a, sum_steps(a, b)
    else:
        question, x, steps = rng.choice(DIFFERENCE_QUESTIONS), a + b, difference_steps(a + b, b)
    content = question.format(x=x, y=b, name=rng.choice(NAMES), things=rng.choice(THINGS))
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": steps}]
    return {"messages": messages, "answer": steps.rpartition("=")[2]}


def score(answer_text: str, row: Mapping[str, Any]) -> bool:
    """True when the last integer in ``answer_text`` is the row's answer, digit for digit ("085" is not 85)."""
    integers = re.findall(r"(?<!\d)-\d+|\d+", answer_text)
    return bool(integers) and integers[-1] == row["answer"]
