"""The methods that learn from pairs and labels, in the table of laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from burnish.config.bco import BCOConfig
from burnish.config.cpo import CPOConfig
from burnish.config.dpo import DPOConfig
from burnish.config.kto import KTOConfig
from burnish.config.orpo import ORPOConfig
from burnish.config.prm import PRMConfig
from burnish.config.reward import RewardConfig
from burnish.methods import dpo as dpo_method
from burnish.methods.bco import BCO, BCOTrainer
from burnish.methods.cpo import CPO, CPOTrainer
from burnish.methods.dpo import DPO, DPOTrainer
from burnish.methods.kto import KTO, KTOTrainer
from burnish.methods.orpo import ORPO, ORPOTrainer
from burnish.methods.prm import PRM, PRMTrainer
from burnish.methods.reward import Reward, RewardTrainer
from burnish.types import Branch, Example, Segment
from tests.laws.case import NO_REFERENCE, NO_REWARDS, NO_SAMPLES, Case, words
from tests.models.families import VOCABULARY

PAIRS = tuple(
    {"prompt": words(i, 3 + i), "chosen": " " + words(3 * i, 2 + i % 3), "rejected": " " + words(5 * i + 1, 1 + i % 4)} for i in range(7)
)
LABELLED = tuple({"prompt": words(i, 3 + i), "completion": " " + words(3 * i, 2 + i % 3), "label": i % 3 != 1} for i in range(7))


def segment(rng: np.random.Generator, length: int, trained: bool) -> Segment:
    return Segment(token_ids=rng.integers(3, VOCABULARY, length), source="model" if trained else "prompt", trained=trained)


def pairs(count: int) -> list[Example]:
    """Prompts of 1 to 17 tokens, with branches of 1 to 9; in a branch of several segments some are context."""
    rng, examples = np.random.default_rng(7), []
    for i in range(count):
        prompt, *lengths = rng.integers(1, (18, 10, 10))
        branches = [[segment(rng, length, True)] for length in lengths]
        if i % 3 == 2:
            branches[i % 2] += [segment(rng, 3, False), segment(rng, 2, True)]
        examples.append(
            Example(
                group_id=f"pair {i}",
                prompt=(segment(rng, prompt, False),),
                branches=tuple(Branch(segments=tuple(one)) for one in branches),
                margin=0.25 * i,
            )
        )
    return examples


def labelled(count: int) -> list[Example]:
    """One labelled branch, or of every third example two, and a completion of another prompt."""
    rng, examples = np.random.default_rng(8), []
    for i in range(count):
        prompt, *lengths = rng.integers(1, (18, 10, 10, 10))
        labels = (True, False) if i % 3 == 2 else (i % 2 == 0,)
        own = [Branch(segments=(segment(rng, n, True),), label=label) for n, label in zip(lengths, labels, strict=False)]
        other = Branch(segments=(segment(rng, lengths[-1], True),))
        examples.append(Example(group_id=f"labelled {i}", prompt=(segment(rng, prompt, False),), branches=(*own, other)))
    return examples


def only_labelled(count: int) -> list[Example]:
    return [Example(group_id=e.group_id, prompt=e.prompt, branches=e.branches[:-1]) for e in labelled(count)]


def last_tokens(count: int) -> list[Example]:
    """Pairs of which the last token alone is read."""
    return [replace(e, branches=tuple(replace(b, segments=_last(b.segments)) for b in e.branches)) for e in pairs(count)]


def _last(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    ids = np.concatenate([s.token_ids for s in segments])
    parts = ((ids[:-1], False), (ids[-1:], True))
    return tuple(Segment(token_ids=part, source="model", trained=trained) for part, trained in parts if len(part))


def steps(count: int) -> list[Example]:
    """Solutions of one to four steps, each with a label at its last token."""
    rng, examples = np.random.default_rng(9), []
    for i in range(count):
        segments = []
        for j in range(1 + (i * 3) % 4):
            segments += [segment(rng, int(rng.integers(1, 10)), False), replace(segment(rng, 1, True), label=(i + j) % 3 != 0)]
        prompt = (segment(rng, int(rng.integers(1, 24)), False),)
        examples.append(Example(group_id=f"steps {i}", prompt=prompt, branches=(Branch(segments=tuple(segments)),)))
    return examples


STEPS = tuple(
    {"prompt": words(i, 3 + i), "completions": [words(3 * i + j, 2 + j) for j in range(n)], "labels": [(i + j) % 2 == 0 for j in range(n)]}
    for i, n in enumerate((1, 2, 3, 1, 2, 3, 1))
)
OFFLINE = {"silence": NO_REWARDS, "two voices": NO_SAMPLES}
FREE = {**OFFLINE, "identity": NO_REFERENCE}
SAME_RUN = "runs as dpo-sigmoid does: its loss is a function of the same log-ratios, which the other laws bind"
WHOLE_RUNS = {"resume": SAME_RUN, "seed": SAME_RUN, "export": SAME_RUN}
DPO_OPTIONS: dict[str, dict[str, Any]] = {
    "sigmoid": {"label_smoothing": 0.1},
    "exo_pair": {"label_smoothing": 1e-3},
    "robust": {"label_smoothing": 0.1},
    "aot": {"label_smoothing": 0.1},
    "ipo": {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    "hinge": {"ld_alpha": 0.5, "beta": 0.02},  # so small that no pair is beyond the hinge
    "sigmoid_norm": {"use_weighting": True},
}


def dpo(loss: str, name: str = "", exempt: dict[str, str] | None = None, **options: Any) -> Case:
    chosen = {"loss_type": [loss], **({} if loss in dpo_method.UNREFERENCED else {"beta": 0.3}), **DPO_OPTIONS.get(loss, {}), **options}

    def method(args: DPOConfig, parts: Any) -> DPO:
        parts.policy.sum_sq = args.use_weighting
        reference = None if loss in dpo_method.UNREFERENCED else parts.reference
        return DPO(args, policy=parts.policy, reference=reference, here=parts.here)

    return Case(
        name=f"dpo-{name or loss}",
        module="dpo",
        loss=loss,
        config=lambda **more: DPOConfig(**{**chosen, **more}),
        method=method,
        trainer=DPOTrainer,
        rows=PAIRS,
        examples=pairs,
        counted="entropy",
        exempt=OFFLINE | (WHOLE_RUNS if exempt is None else exempt),
    )


def other(module: str, loss: str, config: type, trainer: type, rows: Any, method: Any, examples: Any, exempt: Any, **chosen: Any) -> Case:
    kind = chosen.pop("kind", "causal")
    return Case(
        name=loss if module == loss else f"{module}-{loss}",
        module=module,
        loss=loss,
        config=lambda **more: config(**{**chosen, **more}),
        method=method,
        trainer=trainer,
        rows=rows,
        examples=examples,
        counted="entropy" if kind == "causal" else "",
        kind=kind,
        exempt=exempt,
    )


CASES: tuple[Case, ...] = (
    *(dpo(loss, exempt={} if loss in ("sigmoid", "bco_pair") else None) for loss in dpo_method.LOSSES),
    dpo("sigmoid", "mixture", loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0], label_smoothing=0.0),
    dpo("sigmoid", "following", exempt={}, sync_ref_model=True, ref_model_sync_steps=2),
    dpo("sigmoid", "averaging", exempt={}, sync_ref_model=True, ref_model_sync_steps=1, ref_model_update="bema"),
    dpo("sigmoid", "precomputed", exempt={}, precompute_ref_log_probs=True),
    *(
        other(
            "kto", loss, KTOConfig, KTOTrainer, LABELLED,
            lambda args, parts: KTO(args, policy=parts.policy, reference=parts.reference, here=parts.here),
            labelled if loss == "kto" else only_labelled,
            OFFLINE | ({} if loss == "kto" else WHOLE_RUNS),
            loss_type=loss, desirable_weight=1.3,
        )
        for loss in ("kto", "apo_zero_unpaired")
    ),
    *(
        other(
            "bco", loss, BCOConfig, BCOTrainer, LABELLED,
            lambda args, parts: BCO(args, reference=parts.reference, here=parts.here),
            only_labelled, OFFLINE | ({} if loss == "bco" else WHOLE_RUNS), loss_type=loss,
        )
        for loss in ("bco", "bco_trl")
    ),
    other("orpo", "orpo", ORPOConfig, ORPOTrainer, PAIRS, lambda args, parts: ORPO(args=args), pairs, FREE),
    *(
        other(
            "cpo", loss, CPOConfig, CPOTrainer, PAIRS, lambda args, parts: CPO(args=args), pairs,
            FREE | ({} if loss == "simpo" else WHOLE_RUNS),
            loss_type=loss, **{"simpo": {"alpha": 0.2}, "hinge": {"beta": 0.02}}.get(loss, {}),
        )
        for loss in ("sigmoid", "hinge", "ipo", "simpo")
    ),
    other(
        "reward", "bradley_terry", RewardConfig, RewardTrainer, PAIRS, lambda args, parts: Reward(args=args), last_tokens, FREE,
        kind="reward", center_rewards_coefficient=0.1,
    ),
    other("prm", "step", PRMConfig, PRMTrainer, STEPS, lambda args, parts: PRM(args=args), steps, FREE, kind="process_reward"),
)  # fmt: skip
