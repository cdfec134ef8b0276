"""Policies and requests so small that sampling takes a moment, and what the trainer says of what was sampled."""

import numpy as np
import torch

from burnish.data.tree import build_tree
from burnish.models.policy import Policy
from burnish.models.probe import probe
from burnish.rollout.local import LocalSampler
from burnish.rollout.sampler import Request
from burnish.types import Branch, Example, Segment
from tests.models.families import VOCABULARY, tiny_model


def policy_of(family="llama", *, seed=0, wanted=None, **options):
    """A policy in float32, probed."""
    policy = Policy(tiny_model(family, dtype=torch.float32, seed=seed), **options).eval()
    probe(policy, wanted=wanted)
    return policy


def sampler_of(policy, **options):
    return LocalSampler(policy, text=text, **options)


def text(ids):
    return "".join(chr(ord("A") + i % 26) + str(i) for i in ids)


def requests(lengths=(9, 4, 17, 1), samples=3, max_tokens=12, seed=0):
    """`samples` for each prompt, of random tokens."""
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(3, VOCABULARY, n) for n in lengths]
    named = [(f"{seed}:{i}", ids) for i, ids in enumerate(prompts)]
    return [Request(prompt_id=name, sample=j, token_ids=ids, max_tokens=max_tokens) for name, ids in named for j in range(samples)]


def by_name(completions):
    """(prompt, sample, first) → completion."""
    return {(one.request.prompt_id, one.request.sample, one.request.first): one for one in completions}


def tokens(completions):
    return {name: one.token_ids.tolist() for name, one in by_name(completions).items()}


@torch.no_grad()
def trainers_logps(policy, completions, temperature):
    """Of each completion, by the policy's own forward of a tree with all of them."""
    examples = [
        Example(
            group_id=str(i),
            prompt=(Segment(token_ids=one.request.token_ids, source="prompt", trained=False),),
            branches=(Branch(segments=(Segment(token_ids=one.token_ids, source="model", trained=True),)),),
        )
        for i, one in enumerate(completions)
    ]
    policy.temperature = temperature
    found = policy(build_tree(examples)).logp_N.split([len(one.token_ids) for one in completions])
    policy.temperature = 1.0
    return found


@torch.no_grad()
def logits_of(policy, completion):
    """Of each of its tokens, by transformers' own forward: `[t, V]`."""
    row = torch.from_numpy(np.concatenate([completion.request.token_ids, completion.token_ids]).astype(np.int64))
    context = len(completion.request.token_ids)
    return policy.causal_model(row[None], use_cache=False).logits[0, context - 1 : -1]
