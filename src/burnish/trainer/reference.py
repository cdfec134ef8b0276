"""What the trainers of all methods with a reference share: the reference itself, and its log-probs on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from burnish.checkpoint.identity import model_identity
from burnish.config.model import ModelConfig
from burnish.config.train import TrainConfig
from burnish.config.values import ConfigError
from burnish.data.known_logps import KnownLogps, example_key
from burnish.data.spread import spread
from burnish.distributed.launch import Launch, barrier, gather
from burnish.models.load import ModelError, load_tokenizer
from burnish.models.reference import Reference, WantedReference
from burnish.trainer.trainer import Trainer
from burnish.types import Example

C = TypeVar("C", bound=TrainConfig)

BLOCK = 64
"""Examples whose micro-batches are planned together, whoever computes them: a pass that was cut short gives, continued, the same bits."""


class ReferenceTrainer(Trainer[C]):
    """A trainer with a reference: `ref_model` is a model, a folder or a hub id; None for the policy as it is at the start."""

    def __init__(self, model: Any, ref_model: Any = None, args: C | None = None, **more: Any) -> None:
        if isinstance(ref_model, TrainConfig):
            raise ConfigError(
                f"The second argument of {type(self).__name__} is ref_model, as in TRL; write args={type(ref_model).__name__}(...)."
            )
        self.ref_model = ref_model
        super().__init__(model, args, **more)

    def reference(self) -> WantedReference | None:
        args: Any = self.args
        if self.ref_model is not None and args.ref_model_name_or_path is not None:
            raise ConfigError("ref_model and ref_model_name_or_path both name a reference; give one of them.")
        model = args.ref_model_name_or_path if self.ref_model is None else self.ref_model
        name = str(model) if isinstance(model, str) else None
        if name is not None:
            _same_tokens(name, self.processing_class)
        return WantedReference(model=model if name is None else name, args=args, identify=model_identity)

    def prepare_to_run(self) -> None:
        """Computes what is not on disk of the reference's log-probs, and frees the reference."""
        args: Any = self.args
        reference = self.started.reference
        if reference is None or not args.precompute_ref_log_probs or self.sets.known is not None:
            return
        folder, say = args.dataset_cache_dir, self.console.message
        known = KnownLogps(folder, reference.identity)
        for name, one in {"train": self.sets.train, **self.sets.eval}.items():
            examples = (one[i] for i in range(len(one))) if one is not None else self._streamed()
            seen, computed = compute_missing(reference, examples, known, self.max_tokens, self.here)
            say(f"Reference log-probs of {name}: {seen:,} examples, {computed:,} of them computed now, the others known before.")
        reference.free()
        self.sets.known = known

    def _streamed(self) -> Iterator[Example]:
        """The examples of the steps to come."""
        if self.sets.train_set is None:
            return iter(())
        _, opened = self.sets.stream()
        return (example for example, _ in islice(opened((0, 0)), self.run.max_steps * self.args.batch_size))

    def evaluate(self, eval_dataset: Any = None) -> dict[str, float]:
        args: Any = self.args
        if eval_dataset is not None and args.precompute_ref_log_probs:
            raise ConfigError(
                "precompute_ref_log_probs=True frees the reference when the trainer's own sets are done; "
                "give eval_dataset when the trainer is made, or leave precompute_ref_log_probs out."
            )
        return super().evaluate(eval_dataset)


def compute_missing(reference: Reference, examples: Iterable[Example], known: KnownLogps, max_tokens: int, here: Launch) -> tuple[int, int]:
    """Adds to `known` what it lacks, block by block; returns how many examples there are, and for how many it was. Call on every rank.

    A block that was begun is computed again as a whole, with the same micro-batches whatever the number of processes.
    """
    seen = computed = 0
    for block in _blocks(examples):
        keys = [example_key(example) for example in block]
        missing = max(gather(len(known.missing(keys)), here, "what is known of a reference"))  # ranks' disks may differ
        seen, computed = seen + len(block), computed + missing
        if missing:
            found = spread(block, reference, max_tokens, here)
            if here.local_rank == 0:  # one on each machine
                known.add(zip(keys, found, strict=True))
    barrier(here, "the log-probs of a reference to be written")
    return seen, computed


def _blocks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    source = iter(examples)
    while block := list(islice(source, BLOCK)):
        yield block


def _same_tokens(name: str, tokenizer: Any) -> None:
    """Raises ModelError where a reference reads other tokens than the policy. One without a tokenizer is taken at its word."""
    try:
        theirs = load_tokenizer(ModelConfig(model_name_or_path=name)).get_vocab()
    except ModelError:
        return
    ours = tokenizer.get_vocab()
    other = min((token for token, number in theirs.items() if ours.get(token, number) != number), key=theirs.__getitem__, default=None)
    if other is not None:
        raise ModelError(
            f"The reference {name} and the policy read other tokens ({other!r} is number {theirs[other]} and number {ours[other]}); "
            "use a reference with the policy's tokenizer."
        )
