"""Whether a mathematical answer is right: `math-verify` reads it and the row's solution, and compares what they mean.

1 where it is, 0 where it is not or cannot be read, None where the solution cannot be read: as in TRL 1.16. An answer that takes
math-verify longer than its time is a failure here, and wrong in TRL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from burnish.rewards.answers import THOUGHT_ENDS, after_thought, column, text_of
from burnish.rewards.samples import RewardError, Sample

PARSING_S, COMPARING_S = 10, 5
Scored = tuple[float | None, str, str]
"""A reward, the solution as it was read, and the answer likewise."""


def accuracy(*, solution: str = "solution") -> Callable[[Sample], float | None]:
    """Of each completion, against the row's column that is called `solution`. Raises RewardError without math-verify."""
    _math_verify()
    return lambda sample: scored(sample.text, column(sample, solution))[0]


def reasoning_accuracy(
    *, solution: str = "solution", reasoning_delimiters: Sequence[str] = THOUGHT_ENDS
) -> Callable[[Sample], float | None]:
    """Likewise of what follows the thought; 0 where the thought does not end."""
    _math_verify()
    return lambda sample: scored_after_thought(sample.text, column(sample, solution), reasoning_delimiters)[0]


def accuracy_reward(
    completions: Sequence[Any], solution: Sequence[str], log_extra: Callable[[str, list[Any]], None] | None = None, **columns: Any
) -> list[float | None]:
    """As TRL's of this name: of a list of completions and a list of solutions."""
    return _of_all([scored(text_of(one), gold) for one, gold in zip(completions, solution, strict=True)], solution, log_extra)


def reasoning_accuracy_reward(
    completions: Sequence[Any],
    solution: Sequence[str],
    reasoning_delimiters: Sequence[str] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """As TRL's of this name."""
    ends = THOUGHT_ENDS if reasoning_delimiters is None else reasoning_delimiters
    found = [scored_after_thought(text_of(one), gold, ends) for one, gold in zip(completions, solution, strict=True)]
    return _of_all(found, solution, log_extra)


def _of_all(found: list[Scored], solution: Sequence[str], log_extra: Callable[[str, list[Any]], None] | None) -> list[float | None]:
    if log_extra is not None:
        log_extra("solution", list(solution))
        log_extra("gold_parsed", [gold for _, gold, _ in found])
        log_extra("answer_parsed", [answer for _, _, answer in found])
    return [reward for reward, _, _ in found]


def scored_after_thought(text: str, solution: str, ends: Sequence[str]) -> Scored:
    answer = after_thought(text, ends)
    return (0.0, "[incomplete reasoning]", "[incomplete reasoning]") if answer is None else scored(answer, solution)


def scored(text: str, solution: str) -> Scored:
    """math-verify's own limits of time need the main thread of a process, which a worker's calls are in."""
    latex, parse, verify = _math_verify()
    timed = threading.current_thread() is threading.main_thread()
    gold = _or_nothing(lambda: parse(str(solution), parsing_timeout=PARSING_S if timed else None, raise_on_error=True))
    if not gold:
        return None, "[unparseable]", "[skipped]"
    answer = _or_nothing(
        lambda: parse(
            text,
            extraction_config=[latex],
            extraction_mode="first_match",
            parsing_timeout=PARSING_S if timed else None,
            raise_on_error=True,
        )
    )
    right = _or_nothing(lambda: verify(gold, answer, timeout_seconds=COMPARING_S if timed else None, raise_on_error=True))
    return float(bool(right)), str(gold), str(answer) if answer else "[unparseable]"


def _or_nothing(read: Callable[[], Any]) -> Any:
    """What cannot be read as mathematics is an error to math-verify. That its time is over is no `Exception`, and goes on from here."""
    try:
        return read()
    except Exception:  # noqa: BLE001
        return []


def _math_verify() -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """How an answer is looked for, TRL's way: LaTeX, the boxed first, and none outside of an environment; and the two functions."""
    try:
        from latex2sympy2_extended import NormalizationConfig
        from math_verify import LatexExtractionConfig, parse, verify
    except ImportError as error:
        raise RewardError("The rewards of mathematical accuracy need math-verify; pip install 'burnish[math]'.") from error
    latex = LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True), boxed_match_priority=0, try_extract_without_anchor=False
    )
    return latex, parse, verify
