"""Rollouts of many turns from the built-in sampler: what is learnt is what was sampled, whatever is sampled beside it."""

import numpy as np
import pytest
import torch

from burnish.data.tree import build_tree
from burnish.models.policy import Policy
from burnish.models.probe import probe
from burnish.rollout.environments import Environment, History
from burnish.rollout.examples import examples_of
from burnish.rollout.groups import Group
from burnish.rollout.local import LocalSampler
from burnish.rollout.sampler import Sampling
from burnish.rollout.turns import Turns
from tests.models.families import tiny_model
from tests.rollout.scripted import chatml, drawn

TOKENIZER = chatml()
STOPS = tuple(range(60, 110))
"""So many that a random model soon comes to one."""


class Thrice(Environment):
    """Over after three turns; rewrites the history after the second, where it is told to."""

    def reset(self, row):
        self.turns, self.rewrites = 0, row["rewrites"]
        return row["prompt"]

    def step(self, message):
        self.turns += 1
        if self.rewrites and self.turns == 2:
            return History([{"role": "user", "content": "Once more."}]), 1.0, False
        return f"That was turn {self.turns}.", 1.0, self.turns == 3


def sampled(policy, samples, row):
    turns = Turns(TOKENIZER, 120, exact=True, environment_factory=Thrice, stop_token_ids=STOPS)
    prompt, found = drawn(turns, row), {}
    sampler = LocalSampler(policy, text=TOKENIZER.decode)
    sampling = Sampling(temperature=1.0, stop_token_ids=(TOKENIZER.eos_token_id, *STOPS), seed=5)
    going_on = set()

    def then(completion):
        request = turns.then(completion)
        (going_on.discard if request is None else going_on.add)(completion.request.sample)
        return request

    for completion in sampler.sample([turns.begin(prompt, i) for i in samples], sampling, then):
        if completion.request.sample not in going_on:
            found[completion.request.sample] = turns.rollout(completion)
    return prompt, found


@pytest.mark.parametrize("rewrites", [False, True])
def test_law_two_voices_and_law_seed(rewrites):
    policy = Policy(tiny_model("llama", dtype=torch.float32, vocab_size=len(TOKENIZER), max_position_embeddings=512))
    probe(policy)
    row = {"prompt": [{"role": "user", "content": "Say something."}], "rewrites": rewrites}
    prompt, together = sampled(policy, range(6), row)
    assert sorted(together) == list(range(6))
    assert {rollout.counts["turns"] for rollout in together.values()} >= {3}
    assert any(rollout.counts["rewrites"] for rollout in together.values()) == rewrites
    _, alone = sampled(policy, [4], row)
    assert np.array_equal(alone[4].token_ids, together[4].token_ids)
    group = Group(prompt=prompt, rollouts=tuple(together[i] for i in range(6)))
    for example in examples_of(group, [True] * 6, [1.0] * 6, keep_all=False):
        tree = build_tree([example])
        with torch.no_grad():
            logp_N = policy(tree).logp_N
        torch.testing.assert_close(logp_N, tree.behaviour_logp_N, rtol=0, atol=1e-4)
