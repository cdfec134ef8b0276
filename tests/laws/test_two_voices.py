"""Law *two voices*: the sampler's log-probs are the trainer's at the stated temperature, whatever tokens are truncated or penalised.

Through the whole trainer, against plain transformers. Over families, and against distributions, it is `tests/rollout/test_local.py`.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from tests.laws.continued import lines, samples
from tests.laws.methods import build_trainer, cases
from tests.laws.rollout_cases import TRAINERS

GRID = {
    "plain": {},
    "cold": {"temperature": 0.4},
    "hot": {"temperature": 1.7},
    "top-k": {"top_k": 5},
    "top-p": {"top_p": 0.6, "temperature": 1.3},
    "min-p": {"min_p": 0.2},
    "penalised": {"repetition_penalty": 1.4},
    "all": {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.8},
}
TOLERANCE = 1e-4
"""Nats, in float32; `samples` are rounded to as much."""


def log_p(model, prompt_ids, tokens, temperature):
    """`[t, V]`: the model's own, of every token of a completion."""
    ids = torch.tensor([[*prompt_ids, *tokens]])
    with torch.no_grad():
        return (model(ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1].double() / temperature).log_softmax(-1)


def various(completion_ids, **others):
    """Hardly ever the same of two completions."""
    return [float(sum(ids)) for ids in completion_ids]


def made(case, folder, **options):
    plain = {"logging_steps": 1, "learning_rate": 1e-2, "save_strategy": "no"}
    case = replace(case, trainer=partial(TRAINERS[case.module], reward_funcs=various), options={})
    return build_trainer(case, case.model(dtype=torch.float32), folder, **plain, **options)


@cases("two voices", "way", of=lambda case: GRID)
def test_sampled_and_trained(case, way, tmp_path):
    """What is logged of two steps, the second with weights that have moved; and of the first every token of every completion."""
    options = GRID[way]
    trainer = made(case, tmp_path, max_steps=2, **options)
    trainer.train()
    for line in (logged := lines(tmp_path)):
        assert line["ratio"] == 1.0
        assert line["sampling/sampling_logp_difference/mean"] <= TOLERANCE
    assert len(logged) == 2
    plain = case.model(dtype=torch.float32).double()
    prompts = {one.place: one.token_ids.tolist() for one in trainer.sets.prompts.all()}
    said = [line for line in samples(tmp_path) if line["step"] == 0]
    assert len(said) >= 6
    for line in said:
        own = log_p(plain, prompts[line["group"]], line["tokens"], options.get("temperature", 1.0))
        wanted = own.gather(1, torch.tensor(line["tokens"])[:, None])[:, 0]
        assert np.abs(np.array(line["logp"]) - wanted.numpy()).max() <= TOLERANCE
        if options.get("repetition_penalty", 1.0) == 1.0:
            rank = (own > wanted[:, None]).sum(1)
            before = torch.where(own > wanted[:, None], own.exp(), 0.0).sum(1)
            assert rank.max() < (options.get("top_k") or own.shape[1])
            assert before.max() < options.get("top_p", 1.0)
            assert (wanted.exp() >= options.get("min_p", 0.0) * own.exp().amax(1) - 1e-6).all()


@cases("two voices")
def test_another_temperature_is_heard(case, tmp_path):
    """So that the comparison above compares something."""
    trainer = made(case, tmp_path, max_steps=1)
    trainer.policy.temperature = 1.3
    trainer.train()
    assert lines(tmp_path)[0]["sampling/sampling_logp_difference/mean"] > 0.1
