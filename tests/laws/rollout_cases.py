"""The methods that learn from completions of their own, in the table of laws."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from burnish.config.grpo import GRPOConfig
from burnish.config.rloo import RLOOConfig
from burnish.methods import grpo as grpo_method
from burnish.methods.grpo import GRPO, GRPOTrainer
from burnish.methods.rloo import RLOO, RLOOTrainer
from burnish.types import Branch, Example, Segment
from tests.laws.case import Case, words
from tests.models.families import VOCABULARY, tiny_model

TRAINERS = {"grpo": GRPOTrainer, "rloo": RLOOTrainer}
NOW = 1
"""Optimizer steps that the policy of a gradient's test has taken: completions of this version are its own."""
PROMPTS = tuple({"prompt": words(i, 2 + i % 4), "wanted": i % 2} for i in range(7))


def right(prompts: Any, completions: Any, completion_ids: Any, wanted: Any, **others: Any) -> list[float]:
    """1 where the first token is even or odd, as the row wants it: groups are tied every so often."""
    return [float(ids[0] % 2 == want) for ids, want in zip(completion_ids, wanted, strict=True)]


@cache
def _llama() -> torch.nn.Module:
    return tiny_model("llama")


@torch.no_grad()
def _logps(prompt: np.ndarray, completion: np.ndarray) -> np.ndarray:
    """What the policy says of a completion, so that ratios are near 1; rounded, so that it is the same in every process."""
    ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    log_p = _llama()(input_ids=ids[None], use_cache=False).logits[0, :-1].double().log_softmax(-1)
    return log_p.gather(1, ids[1:, None])[len(prompt) - 1 :, 0].numpy().round(2)


def groups(count: int, *, drawn: bool = False, stale: bool = True, left_out: bool = True) -> list[Example]:
    """Prompts of 1 to 14 tokens with two to four completions of 1 to 9, better and worse than the others.

    Of every third group the first completion is as good as the mean: it is left out, or with `left_out` False it has an advantage of 0.
    Of every other group the completions are those of an older policy, unless `stale` is False. `drawn`: with the log-probs that tokens
    were drawn by.
    """
    rng, examples = np.random.default_rng(11), []
    for i in range(count):
        prompt, version = rng.integers(3, VOCABULARY, rng.integers(1, 15)), NOW - (i % 2 if stale else 0)
        branches = []
        for j in range(2 + i % 3):
            ids = rng.integers(3, VOCABULARY, rng.integers(1, 10))
            gap, noise = rng.normal(0, 0.15, (2, len(ids))).round(2)
            behaviour = _logps(prompt, ids) + (gap if version < NOW else 0.0)
            segment = Segment(
                token_ids=ids, source="model", trained=True, behaviour_logp=behaviour, policy_version=version,
                sampled_logp=behaviour + noise if drawn else None,
            )  # fmt: skip
            advantage = round(float(rng.normal()), 2) * (-1) ** j
            if i % 3 == 0 and not j:
                branches.append(Branch(segments=(), advantage=0.0, left_out=len(ids)) if left_out else _branch(segment, 0.0))
            else:
                branches.append(_branch(segment, advantage))
        context = Segment(token_ids=prompt, source="prompt", trained=False)
        examples.append(Example(group_id=f"group {i}", prompt=(context,), branches=tuple(branches)))
    return examples


def _branch(segment: Segment, advantage: float) -> Branch:
    return Branch(segments=(segment,), advantage=advantage)


SAME_RUN = "runs as grpo-dapo does: only the loss differs, which the other laws bind"
WHOLE_RUNS = {"two voices": SAME_RUN, "resume": SAME_RUN, "seed": SAME_RUN, "export": SAME_RUN}
SAMPLING = {"num_generations": 3, "max_completion_length": 5, "reward_workers": 1}


def grpo(
    loss: str, name: str = "", examples: Any = groups, exempt: dict[str, str] | None = None, options: Any = None, **chosen: Any
) -> Case:
    def method(args: GRPOConfig, parts: Any) -> GRPO:
        made = GRPO(args, policy=parts.policy, reference=parts.reference if args.beta else None, here=parts.here)
        made.version = NOW
        return made

    return Case(
        name=f"grpo-{name or loss}",
        module="grpo",
        loss=loss,
        config=lambda **more: GRPOConfig(**{"loss_type": loss, **SAMPLING, **chosen, **more}),
        method=method,
        trainer=lambda model, **more: GRPOTrainer(model, reward_funcs=right, **more),
        rows=PROMPTS,
        examples=examples,
        options=options or {},
        counted="entropy",
        samples=True,
        exempt=WHOLE_RUNS if exempt is None else exempt,
    )


def rloo(args: RLOOConfig, parts: Any) -> RLOO:
    made = RLOO(args, here=parts.here)
    made.version = NOW
    return made


CASES: tuple[Case, ...] = (
    *(grpo(loss) for loss in grpo_method.LOSSES if loss != "dapo"),
    grpo(
        "dapo",
        exempt={},
        options={"max_steps": 8, "num_iterations": 2, "steps_per_generation": 2, "dynamic_sampling": True, "dynamic_sampling_rounds": 1},
    ),
    grpo("grpo", "kl", lambda n: groups(n, left_out=False), beta=0.1, epsilon_high=0.3, delta=1.5),
    grpo(
        "dapo", "entropy", lambda n: groups(n, left_out=False),
        WHOLE_RUNS | {"silence": "learns from entropy whatever the rewards are, so that there is no silence"},
        beta=0.1, use_bias_correction_kl=False, top_entropy_quantile=0.5, entropy_coef=0.05, importance_sampling_level="sequence",
    ),
    grpo(
        "bnpo", "corrected", lambda n: groups(n, drawn=True, left_out=False),
        WHOLE_RUNS | {"identity": "weighs completions by what a server drew them from, which is never quite the policy"},
        off_policy_mask_threshold=0.1, use_vllm=True, vllm_importance_sampling_mode="token_truncate",
    ),
    Case(
        name="rloo",
        module="rloo",
        loss="rloo",
        config=lambda **more: RLOOConfig(**{**SAMPLING, "sync_ref_model": True, "ref_model_sync_steps": 2, **more}),
        method=rloo,
        trainer=lambda model, **more: RLOOTrainer(model, reward_funcs=right, **more),
        rows=PROMPTS,
        examples=groups,
        counted="entropy",
        samples=True,
        exempt={},
    ),
)  # fmt: skip
