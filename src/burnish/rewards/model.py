"""Reward models: what a trained model thinks of a completion. They run in the trainer's process, on its device, and are never trained.

A conversation is rendered with the reward model's own template and tokenizer, and its score is read at the last completion's end-of-turn
token: as `methods/reward.py` trains it, and as transformers' classifiers read a row that ends there. The completions of a prompt are one
tree, and what they begin with alike is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from burnish.config.model import ModelConfig
from burnish.data.groups import ChatGroups, Sides, TextGroups, ids_of
from burnish.data.prepare_report import Tally
from burnish.data.readers import PrepareOptions
from burnish.data.tree import build_tree, split_example
from burnish.models.attention import register
from burnish.models.load import check_kind, choose_compute_dtype, load_model, load_tokenizer
from burnish.models.padding import set_padding
from burnish.models.probe import probe
from burnish.models.scorer import Scorer
from burnish.rewards.names import ModelSource
from burnish.rewards.samples import Failure, Reward, RewardError, Sample
from burnish.types import Branch, Example, Segment

NOT_FIRST = 1 << 30
"""Number of a row that is not among the first of its file, which are looked at more closely."""


class RewardModel:
    """``RewardModel(source, device=device)(samples)`` gives a score for each sample of a prompt.

    `tokenizer` is the reward model's own; None: the one that is saved with it. `compute_dtype` as in `TrainConfig`. `max_tokens` bounds
    what is run at once, and a row that is longer than the model's positions is a `Failure`. Every process holds a whole copy.

    Raises RewardError for a model without a trained head and a tokenizer without a template for conversations, and ModelError.
    """

    def __init__(
        self, source: ModelSource, *, device: torch.device, tokenizer: Any = None, compute_dtype: str = "auto", max_tokens: int = 16384
    ) -> None:  # fmt: skip
        self.name, self.max_tokens = source.name, max_tokens
        model = self._loaded(source.model, device) if isinstance(source.model, str) else source.model.to(device)
        check_kind(model, "reward")
        if tokenizer is None:
            tokenizer = load_tokenizer(ModelConfig(model_name_or_path=str(model.config.name_or_path)))
        set_padding(model, tokenizer)
        weights = next(model.parameters()).dtype
        compute = choose_compute_dtype(compute_dtype, device)[0] if weights is torch.float32 else weights
        register()
        self.scorer = Scorer(model.requires_grad_(False), compute_dtype=compute)
        self.scorer.eval()
        self.messages = probe(self.scorer).messages
        self.tokenizer = tokenizer
        self.longest = model.config.get_text_config().to_dict().get("max_position_embeddings") or math.inf

    def _loaded(self, name: str, device: torch.device) -> Any:
        new: list[str] = []
        model = load_model(ModelConfig(model_name_or_path=name), device, "reward", new.append)
        if new:
            raise RewardError(f"The reward model {name!r} has no trained score head, and its scores would be noise; train it first.")
        return model

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample]) -> list[Reward]:
        """The scores of completions of one prompt."""
        rows = self._encoded(samples)
        rewards: list[Reward] = [Failure(f"is longer than the model's {self.longest} tokens")] * len(samples)
        fitting = [i for i, ids in enumerate(rows) if len(ids) <= self.longest]
        if not fitting:
            return rewards
        scores = []
        for part in split_example(_example([rows[i] for i in fitting]), self.max_tokens):
            tree = build_tree([part]).to(self.scorer.device)
            score_N = self.scorer(tree).score_NK[:, 0].float()
            scores += score_N[tree.branch_N.argsort()].tolist()
        for i, score in zip(fitting, scores, strict=True):
            rewards[i] = score if math.isfinite(score) else Failure("returned NaN" if math.isnan(score) else "returned an infinite number")
        return rewards

    def _encoded(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Token ids of prompt and completion, up to the end of its turn."""
        chat = not isinstance(samples[0].prompt, str)
        if chat and not self.tokenizer.chat_template:
            raise RewardError(
                f"The tokenizer of the reward model {self.name!r} has no chat template, and the prompts are messages; set one."
            )
        encode = ChatGroups(self.tokenizer, PrepareOptions()) if chat else TextGroups(self.tokenizer, PrepareOptions())
        completions = [one.completion for one in samples]
        sides = Sides(row=dict(samples[0].columns), number=NOT_FIRST, prompt=samples[0].prompt, completions=completions)
        (parts,) = encode([sides], Tally())
        return [np.concatenate((ids_of(prompt), ids_of(completion))) for prompt, completion in parts]


def _example(rows: Sequence[np.ndarray]) -> Example:
    """One tree: what all begin with, and the rest of each, whose last token is read."""
    shortest = min(map(len, rows)) - 1
    differ = [int(np.argmax(row[:shortest] != rows[0][:shortest])) for row in rows if (row[:shortest] != rows[0][:shortest]).any()]
    common = min(differ, default=shortest)
    return Example(
        group_id="scored",
        prompt=(Segment(token_ids=rows[0][:common], source="prompt", trained=False),) if common else (),
        branches=tuple(
            Branch(
                segments=(
                    Segment(token_ids=row[common:-1], source="prompt", trained=False),
                    Segment(token_ids=row[-1:], source="model", trained=True),
                )
            )
            for row in rows
        ),
    )
