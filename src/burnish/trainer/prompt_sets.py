"""The prompts of a run: what a user gives, checked, and drawn by `rollout/drawing.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from burnish.config.online import OnlineConfig
from burnish.config.values import ConfigError
from burnish.data.dataset import Dataset, as_dataset, formats_of, named_sets
from burnish.distributed.launch import Launch
from burnish.models.memory import ROW
from burnish.rollout.drawing import Prompts, Render
from burnish.types import TokenTree


class PromptSets:
    """Has the names of `Sets`, but for what only data with answers has. Raises ConfigError, DataError."""

    train = None
    streamed = None
    known = None

    def __init__(
        self, train: Any, evaluation: Any, args: OnlineConfig, tokenizer: Callable[[], Any], renderer: Callable[[Any], Render], *,
        any_columns: bool = False,
    ) -> None:  # fmt: skip
        """`renderer`: from the tokenizer to what renders rows. `any_columns`: an environment begins prompts, and rows may have none."""
        self.args, self._any_columns = args, any_columns
        if train is None and any_columns and args.max_steps > 0:
            train = [{}] * args.batch_size  # the environment sets the task, and max_steps says how often
        self.train_set = None if train is None else as_dataset(train)
        evaluated = {prefix: as_dataset(given) for prefix, given in named_sets(evaluation).items()}
        for one in filter(None, (self.train_set, *evaluated.values())):
            if one.streaming:
                raise ConfigError("Prompts are drawn by their number, which a stream has not; give a file or a data set.")
            self._check(one)
        self.tokenizer = tokenizer()
        self._renderer = renderer(self.tokenizer)
        self.prompts = None if self.train_set is None else self._prompts(self.train_set, training=True)
        self.eval = {prefix: self._prompts(one) for prefix, one in evaluated.items()}
        self.open = self.eval
        """The sets that are evaluated on, by the prefix of their metrics."""

    def _check(self, dataset: Dataset) -> None:
        if not self._any_columns:
            formats_of(dataset, accepted=self.args.row_formats)

    def _prompts(self, dataset: Dataset, *, training: bool = False) -> Prompts:
        args, extra = self.args, self.args.chat_template_kwargs or {}

        def render(rows: Any) -> Any:
            if extra:
                rows = [row if isinstance(row.get("prompt"), str) else {**row, "chat_template_kwargs": extra | _given(row)} for row in rows]
            return self._renderer(rows)

        shuffle = training and args.train_sampling_strategy == "random"
        return Prompts(dataset, render, seed=args.seed, shuffle=shuffle, max_length=args.max_prompt_length)

    def prepared(self, given: Any) -> dict[str, Prompts]:
        """Other evaluation sets, by their metrics' prefix."""
        sets = {prefix: as_dataset(one) for prefix, one in named_sets(given).items()}
        for one in sets.values():
            self._check(one)
        return {prefix: self._prompts(one) for prefix, one in sets.items()}

    def trees(self, sets: dict[str, Prompts], max_tokens: int, here: Launch) -> dict[str, Callable[[], Iterable[TokenTree]]]:
        """No micro-batches: of these sets completions are sampled, by `rollout/tasks.py`."""
        self.open = sets
        return {prefix: partial(iter, ()) for prefix in sets}

    @property
    def longest(self) -> int:
        """Tokens of a prompt and its completion, as far as they are known."""
        first = self.prompts.first(32) if self.prompts is not None else []
        return max((len(prompt.token_ids) for prompt in first), default=ROW) + self.args.max_completion_length

    @property
    def identity(self) -> str:
        """What the prompts are, for a run that is continued."""
        return "" if self.prompts is None else self.prompts.fingerprint[:16]

    @property
    def weights(self) -> str:
        return str(self.train_set and self.train_set.weights)

    def described(self) -> dict[str, Any]:
        found = {"train": self.prompts} if self.prompts is not None else {}
        return {name: {"fingerprint": one.fingerprint, "prompts": len(one)} for name, one in {**found, **self.eval}.items()}


def _given(row: Any) -> dict[str, Any]:
    return dict(row.get("chat_template_kwargs") or {})
