"""Reward models to test with, and what transformers says of the same tokens."""

import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from burnish.config.model import ModelConfig
from burnish.models.attention import NAME, register
from burnish.models.scorer import Scorer
from burnish.types import Branch, Example, Segment
from tests.laws.methods import tokenizer
from tests.laws.trees import path_to
from tests.models.families import tiny_scorer

CPU = torch.device("cpu")
AUTO = {"reward": AutoModelForSequenceClassification, "process_reward": AutoModelForTokenClassification}
LABELS = {"reward": 1, "process_reward": 2}


def alone(model, tree):
    """For each trained token, what transformers gives for the row that ends there: `[N, K]`."""
    scores = []
    for index in tree.index_N.tolist():
        number = next(i for i, node in enumerate(tree.nodes) if node.start <= index < node.end)
        path = path_to(tree, number)
        ids = tree.token_ids_T[path[: path.tolist().index(index) + 1]]
        logits = model(ids[None], use_cache=False).logits
        scores.append(logits[0, -1] if logits.ndim == 3 else logits[0])
    return torch.stack(scores)


def scorer_of(family, kind="reward", paths=None, **options):
    register()
    scorer = Scorer(tiny_scorer(family, kind, **options), paths=paths)
    if scorer.paths.attention == "tree":
        scorer.causal_model.set_attn_implementation(NAME)
    return scorer


def pair():
    def branch(*ids):
        return Branch(
            segments=(Segment(token_ids=ids[:-1], source="model", trained=False), Segment(token_ids=ids[-1:], source="model", trained=True))
        )

    prompt = (Segment(token_ids=[5, 6, 7], source="prompt", trained=False),)
    return Example(group_id="a", prompt=prompt, branches=(branch(8, 9, 2), branch(10, 2)))


def config(path, **options):
    return ModelConfig(model_name_or_path=str(path), **options)


def with_pad(**options):
    one = tokenizer()
    for name, token in options.items():
        setattr(one, name, token)
    return one
