"""The table: every method × every law.

A method that is not here fails the build, and so does one of its losses. A law that does not apply to a method is
named with the reason; it then shows as a skipped test that says so.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from burnish.config.sft import SFTConfig
from burnish.config.train import TrainConfig
from burnish.experimental import HERE, entries
from burnish.methods.sft import SFT, SFTTrainer
from burnish.run import Method
from burnish.types import Branch, Example, Segment
from tests.models.families import VOCABULARY

LAWS = {
    "micro-batch": "any split of the same step gives the same gradient",
    "ranks": "two processes = one, for gradients and for every metric",
    "tree": "a tree = its branches run alone",
    "mask": "the gradient with respect to anything not trained is exactly 0",
    "order": "permuting a batch permutes per-example losses and changes nothing else",
    "identity": "policy = reference: the loss is its value at equality",
    "silence": "equal rewards give no gradient",
    "two voices": "sampler log-probs = trainer log-probs",
    "round trip": "the trained mask covers exactly the assistant's tokens and the end of turn",
    "resume": "k steps + kill + resume = never stopped",
    "seed": "same seed, same bits; other seed, other bits",
    "fast = plain": "each fast path equals the plain one",
    "export": "save, load with plain transformers, same logits",
    "paper": "each numbered equation, worked by hand",
}
MODEL_LAWS = {"tree", "round trip", "fast = plain"}
"""Laws of rooms that all methods share; their tests take no case."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method with one of its losses: how the tests of the laws build it, on tiny data."""

    name: str
    module: str
    """In `burnish.methods`; or an entry's name in `burnish.experimental`."""
    room: Literal["methods", "experimental"] = "methods"
    loss: str
    """A key of that module's `LOSSES`."""
    config: Callable[..., TrainConfig]
    method: Callable[[TrainConfig], Method]
    """The method as the loop sees it."""
    trainer: type
    """Called as users call it, on `rows`."""
    rows: tuple[dict[str, Any], ...]
    examples: Callable[[int], list[Example]]
    """So many token-level examples, of very unequal lengths, each with something to train."""
    family: str = "llama"
    aux_loss: bool = False
    """Asks the policy for a mixture-of-experts model's balancing loss."""
    exempt: Mapping[str, str] = field(default_factory=dict)
    """Law → why it does not apply."""


def cases(law: str) -> Any:
    """Parametrises a test by all methods, those that are exempt skipped with their reason."""
    assert law in LAWS
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


def words(first: int, count: int) -> str:
    return " ".join(f"w{(first + 7 * i) % 90}" for i in range(count))


COMPLETIONS = tuple({"prompt": words(i, 3 + i), "completion": " " + words(3 * i, 2 + i % 3)} for i in range(7))

NO_REFERENCE = "compares with no reference model"
NO_REWARDS = "learns from no rewards"
NO_SAMPLES = "samples no tokens"
OFFLINE = {"identity": NO_REFERENCE, "silence": NO_REWARDS, "two voices": NO_SAMPLES}


def sft(loss: str, **changes: Any) -> Case:
    coefficient = 0.1 if changes.get("aux_loss") else 0.0
    common: dict[str, Any] = {
        "name": f"sft-{loss}",
        "config": lambda **options: SFTConfig(**{"loss_type": loss, **options}),
        "method": lambda args: SFT(args=args, aux_loss_coef=coefficient),
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
        "dataset_cache_dir": str(output_dir.parent / "cache"),
        "batch_size": 2,
        "compute_dtype": "float32",
        "max_tokens_per_microbatch": 14,
        "disable_tqdm": True,
    }
    return case.trainer(model, case.config(**pinned | options), train_dataset=list(case.rows), processing_class=tokenizer(), **more)


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
