"""The table: every method × every law.

A method that is not here fails the build, and so does one of its losses. A law that does not apply to a method is
named with the reason; it then shows as a skipped test that says so.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnish.config.sft import SFTConfig
from burnish.experimental import HERE, entries
from burnish.methods.sft import SFT, SFTTrainer
from burnish.types import Branch, Example, Segment
from tests.laws import preference_cases, rollout_cases
from tests.laws.case import LAWS, MODEL_LAWS, OFFLINE, Case, Parts, words
from tests.models.families import VOCABULARY

__all__ = ["CASES", "COMPLETIONS", "LAWS", "MODEL_LAWS", "OFFLINE", "Case", "Parts", "build_trainer", "cases", "tokenizer", "turns"]


def cases(law: str, *ways: str, of: Callable[[Case], Iterable[Any]] | None = None) -> Any:
    """Parametrises a test by all methods, those that are exempt skipped with their reason.

    With `of`, also by the `ways` in which each case is tried, which are what `of` gives for it: one value, or a tuple of them.
    """
    assert law in LAWS
    if of is not None:
        bound = [c for c in CASES if law not in c.exempt]
        tried = [(c, way if isinstance(way, tuple) else (way,)) for c in bound for way in of(c)]
        marked = [pytest.param(c, *way, id="-".join(map(str, (*way, c.name)))) for c, way in tried]
        return pytest.mark.parametrize(("case", *ways), marked)
    marked = [pytest.param(c, id=c.name, marks=[pytest.mark.skip(reason=c.exempt[law])] if law in c.exempt else []) for c in CASES]
    return pytest.mark.parametrize("case", marked)


def turns(count: int, *, longest: int = 23) -> list[Example]:
    """Rows of alternating context and trained runs; the first of them trains its very first token too, which is no target."""
    rng = np.random.default_rng(5)
    examples = []
    for i in range(count):
        lengths = rng.integers(1, 2 + (i * 7) % longest, 4)
        trained = [True, i % 2 == 0, i % 3 != 0, True] if i else [True, True, False, True]
        segments = [
            Segment(token_ids=rng.integers(3, VOCABULARY, n), source="model" if t else "prompt", trained=t)
            for n, t in zip(lengths, trained, strict=True)
        ]
        prompt, branch = (segments[:1], segments[1:]) if i % 2 and not trained[0] else ([], segments)
        examples.append(Example(group_id=f"row {i}", prompt=tuple(prompt), branches=(Branch(segments=tuple(branch)),)))
    return examples


COMPLETIONS = tuple({"prompt": words(i, 3 + i), "completion": " " + words(3 * i, 2 + i % 3)} for i in range(7))


def sft(loss: str, **changes: Any) -> Case:
    coefficient = 0.1 if changes.get("aux_loss") else 0.0
    common: dict[str, Any] = {
        "name": f"sft-{loss}",
        "config": lambda **options: SFTConfig(**{"loss_type": loss, **options}),
        "method": lambda args, parts: SFT(args=args, aux_loss_coef=coefficient),
        "exempt": OFFLINE,
    }
    return Case(module="sft", loss=loss, trainer=SFTTrainer, rows=COMPLETIONS, examples=turns, **{**common, **changes})


CASES: tuple[Case, ...] = (
    sft("nll"),
    sft("dft"),
    sft(
        "nll",
        name="sft-balanced-experts",
        family="qwen3-moe",
        aux_loss=True,
        exempt=OFFLINE | {"micro-batch": "the balancing loss is a mean of each micro-batch's own balance, so the cut is part of it"},
    ),
)


CASES += preference_cases.CASES + rollout_cases.CASES


def experimental() -> Iterator[Case]:
    """What entries bring with them, in `tests/law_cases.py`; those files import what stands above from here."""
    for entry in entries():
        path = HERE / entry / "tests" / "law_cases.py"
        if path.is_file():
            yield from runpy.run_path(str(path))["CASES"]


CASES += tuple(experimental())


def build_trainer(case: Case, model: Any, output_dir: Path, **options: Any) -> Any:
    """A trainer on `case.rows`, in steps of two examples, with everything that depends on the machine pinned."""
    more = {name: options.pop(name) for name in ("peft_config", "callbacks", "eval_dataset") if name in options}
    pinned = {
        "output_dir": str(output_dir),
        **({} if case.samples else {"dataset_cache_dir": str(output_dir.parent / "cache")}),
        "batch_size": 2,
        "compute_dtype": "float32",
        "max_tokens_per_microbatch": 14,
        "disable_tqdm": True,
    }
    return case.trainer(
        model,
        args=case.config(**pinned | dict(case.options) | options),
        train_dataset=list(case.rows),
        processing_class=tokenizer(),
        **more,
    )


def tokenizer() -> Any:
    """One token for each word w0 … w89, with special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(90))]
    plain = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<pad>"))
    plain.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
