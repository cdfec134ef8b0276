"""What the table of laws is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.config.train import TrainConfig
from burnish.distributed.launch import Launch
from burnish.models.load import Kind
from burnish.models.policy import Paths, Policy, TreeModel
from burnish.models.reference import Reference
from burnish.models.scorer import Scorer
from burnish.run import Method
from burnish.types import Example
from tests.models.families import tiny_model, tiny_scorer

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
class Parts:
    """What a method may be made of, beside its configuration."""

    policy: Any
    reference: Reference
    """Another model than the policy, or there would be no log-ratios."""
    here: Launch


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
    method: Callable[[Any, Parts], Method]
    """The method as the loop sees it, from its configuration."""
    trainer: Callable[..., Any]
    """Called as users call it, on `rows`."""
    rows: tuple[dict[str, Any], ...]
    examples: Callable[[int], list[Example]]
    """So many token-level examples, of very unequal lengths, each with something to train."""
    family: str = "llama"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the trainer's configuration, for every whole run."""
    counted: str = "nll"
    """A metric that is a mean over all trained tokens; empty where there is none."""
    aux_loss: bool = False
    """Asks the policy for a mixture-of-experts model's balancing loss."""
    samples: bool = False
    """Learns from completions of its own: a group's branches can be learnt from one by one, and its runs write samples."""
    kind: Kind = "causal"
    """What its model is: a language model, or one that gives scores."""
    exempt: Mapping[str, str] = field(default_factory=dict)
    """Law → why it does not apply."""

    @property
    def loops(self) -> bool:
        """Tried in every way that a loop can run: the loop is the same for all methods, and the first ones stand for it."""
        return self.module in ("sft", "profit")

    @property
    def whole(self) -> bool:
        """Trained from its rows to the end, too: not every loss of a method is."""
        return "resume" not in self.exempt

    def model(self, **options: Any) -> Any:
        """A tiny model as the method trains it."""
        return tiny_model(self.family, **options) if self.kind == "causal" else tiny_scorer(self.family, self.kind, **options)

    def policy(self, model: Any, *, paths: Paths | None = None) -> TreeModel:
        return (Policy if self.kind == "causal" else Scorer)(model, paths=paths, aux_loss=self.aux_loss)


def words(first: int, count: int) -> str:
    return " ".join(f"w{(first + 7 * i) % 90}" for i in range(count))


NO_REFERENCE = "compares with no reference model"
NO_REWARDS = "learns from no rewards"
NO_SAMPLES = "samples no tokens"
OFFLINE = {"identity": NO_REFERENCE, "silence": NO_REWARDS, "two voices": NO_SAMPLES}
