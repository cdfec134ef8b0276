"""Each loss and its gradient on every token beside TRL 1.16's own code, on the same log-probs, to 1e-6.

Needs an interpreter with TRL 1.16, named by BURNISH_TRL_PYTHON; skipped without one. Log-probs are multiples of 1/64, so that
float32 adds them without rounding and what is compared is the loss.
"""

import json
import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch

from burnish.ops import reference_free, unpaired
from burnish.ops.bradley_terry import bradley_terry_loss, centring_loss
from burnish.ops.divergences import DIVERGENCES, DIVERGENCES_AS_IN_TRL
from burnish.ops.preference import LOSSES, LOSSES_AS_IN_TRL, Pairs, ReferencedPairs
from burnish.ops.reduce import per_branch
from burnish.ops.weighting import length_desensitised, wpo_weight

PYTHON = os.environ.get("BURNISH_TRL_PYTHON")
TOLERANCE = 1e-6
CHOSEN, REJECTED = [3, 7, 1, 4, 6], [5, 2, 9, 4, 1]
IN_TRL = {**LOSSES, **LOSSES_AS_IN_TRL}
SCORES = {**DIVERGENCES, **DIVERGENCES_AS_IN_TRL}
SCORED = ["sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sigmoid_norm"]
SMOOTHED = ["exo_pair", "robust", "aot", "aot_unpaired"]


def sixty_fourths(*shape, generator, low=-96, high=0):
    return torch.randint(low, high, shape, generator=generator) / 64.0


def dpo_case(seed, loss_type, **options):
    generator = torch.Generator().manual_seed(seed)
    names = [loss_type] if isinstance(loss_type, str) else loss_type
    longest = max(CHOSEN + REJECTED)
    logp = sixty_fourths(2 * len(CHOSEN), longest, generator=generator)
    noise = sixty_fourths(2, len(CHOSEN), generator=generator, low=-256, high=256)
    sums = torch.tensor([row[:n].sum() for row, n in zip(logp, CHOSEN + REJECTED, strict=True)]).reshape(2, -1)
    return {
        "method": "dpo",
        "loss_type": names,
        "beta": 0.25,
        **({"label_smoothing": 0.125} if set(names) & set(SMOOTHED) else {}),
        **options,
        "logp": logp.tolist(),
        "log_sum_sq": sixty_fourths(2 * len(CHOSEN), longest, generator=generator).tolist(),
        "chosen_tokens": CHOSEN,
        "rejected_tokens": REJECTED,
        "ref_chosen": (sums[0] + noise[0]).tolist(),
        "ref_rejected": (sums[1] + noise[1]).tolist(),
    }


def kto_case(loss_type, kl_shift):
    generator = torch.Generator().manual_seed(7)
    logp = sixty_fourths(5, 9, generator=generator)
    tokens = [3, 9, 1, 5, 2]
    ref = torch.tensor([row[:n].sum() for row, n in zip(logp, tokens, strict=True)]) + sixty_fourths(
        5, generator=generator, low=-99, high=99
    )
    kl_logratio = sixty_fourths(5, generator=generator) + kl_shift
    label = [True, False, True, True, False]
    common = {"method": "kto", "beta": 0.25, "desirable_weight": 1.25, "undesirable_weight": 0.75, "label": label, "tokens": tokens}
    return {**common, "loss_type": loss_type, "logp": logp.tolist(), "ref": ref.tolist(), "kl_logratio": kl_logratio.tolist()}


def score_case(method, scale=1.0, **options):
    generator = torch.Generator().manual_seed(11)
    return {"method": method, "beta": 0.5, **options, "logp": (scale * sixty_fourths(2, 6, generator=generator)).tolist()}


CASES = {
    **{name: dpo_case(seed, name) for seed, name in enumerate(LOSSES)},
    **{
        f"{name}, {score}": dpo_case(seed, name, f_divergence_type=score, f_alpha_divergence_coef=0.75)
        for seed, name in enumerate(SCORED)
        for score in ("forward_kl", "js_divergence", "alpha_divergence")
    },
    **{f"{name}, ld_alpha": dpo_case(seed, name, ld_alpha=0.5) for seed, name in enumerate(["sigmoid", "hinge", "apo_zero", "aot"])},
    **{
        f"{name}, WPO": dpo_case(seed, name, use_weighting=True) for seed, name in enumerate(["sigmoid", "ipo", "nca_pair"])
    },  # with sft, TRL raises
    "sigmoid, smoothing ignored": dpo_case(3, "sigmoid", label_smoothing=0.125),
    "discopop, tau": dpo_case(4, "discopop", discopop_tau=0.5),
    "MPO": dpo_case(5, ["sigmoid", "bco_pair", "sft"], loss_weights=[0.75, 0.25, 1.0]),
    "kto": kto_case("kto", 2.0),
    "kto, kl below 0": kto_case("kto", 0.0),
    "apo_zero_unpaired": kto_case("apo_zero_unpaired", 0.0),
    **{f"cpo {name}": score_case("cpo", loss_type=name) for name in reference_free.LOSSES},
    **{f"cpo {name}, alpha": score_case("cpo", loss_type=name, alpha=0.5) for name in reference_free.LOSSES},
    "cpo sigmoid, smoothed": score_case("cpo", loss_type="sigmoid", label_smoothing=0.125),
    "cpo simpo, smoothed": score_case("cpo", loss_type="simpo", label_smoothing=0.125, simpo_gamma=1.5),
    "orpo": score_case("orpo"),
    "reward": score_case("reward", scale=-2.0, center_rewards_coefficient=None),
    "reward, margin and centring": score_case(
        "reward", scale=-2.0, center_rewards_coefficient=0.01, margin=[0.5, 1.0, 0.0, 2.0, 0.25, 1.5]
    ),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    if not PYTHON:
        pytest.skip("BURNISH_TRL_PYTHON names no interpreter with TRL 1.16")
    folder = tmp_path_factory.mktemp("trl")
    (folder / "in.json").write_text(json.dumps(list(CASES.values())))
    script = Path(__file__).with_name("preference_trl.py")
    done = subprocess.run(
        [PYTHON, str(script), str(folder / "in.json"), str(folder / "out.json")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, json.loads((folder / "out.json").read_text()), strict=True))


def flat_tokens(lengths):
    """Which rows and columns hold a completion's tokens, and whose they are: as a tree would lay them out."""
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    column = torch.cat([torch.arange(n) for n in lengths])
    return row, column


def ours_dpo(case, logp):
    branch_N, column_N = flat_tokens(CHOSEN + REJECTED)
    logp_N, P = logp[branch_N, column_N], len(CHOSEN)
    tokens_B = torch.tensor(CHOSEN + REJECTED)
    plain_B = per_branch(logp_N, branch_N, 2 * P)
    logp_B = plain_B
    if "ld_alpha" in case:
        logp_B = length_desensitised(logp_N, branch_N, torch.minimum(tokens_B[:P], tokens_B[P:]).repeat(2), ld_alpha=case["ld_alpha"])
    pairs = ReferencedPairs(
        chosen_logp_P=logp_B[:P],
        rejected_logp_P=logp_B[P:],
        chosen_tokens_P=tokens_B[:P],
        rejected_tokens_P=tokens_B[P:],
        ref_chosen_logp_P=torch.tensor(case["ref_chosen"]),
        ref_rejected_logp_P=torch.tensor(case["ref_rejected"]),
    )
    weight_P = 1.0
    if case.get("use_weighting"):
        weight_B = wpo_weight(logp_N, torch.tensor(case["log_sum_sq"])[branch_N, column_N], branch_N, 2 * P)
        weight_P = weight_B[:P] * weight_B[P:]
    total = 0.0
    for name, weight in zip(case["loss_type"], case.get("loss_weights", [1.0] * 3), strict=False):
        options = {"tokens_per_pair": sum(CHOSEN) / P} if name == "sft" else {"beta": case["beta"]}
        if name in SMOOTHED:
            options["label_smoothing"] = case["label_smoothing"]
        if "f_divergence_type" in case:
            options["divergence"] = SCORES[case["f_divergence_type"]]
            if case["f_divergence_type"] == "alpha_divergence":
                options["divergence"] = partial(options["divergence"], f_alpha_divergence_coef=case["f_alpha_divergence_coef"])
        if "discopop_tau" in case:
            options["discopop_tau"] = case["discopop_tau"]
        total = total + weight * (IN_TRL[name](pairs, **options) * weight_P).mean()
    return total


def ours_kto(case, logp):
    branch_N, column_N = flat_tokens(case["tokens"])
    logratio_B = per_branch(logp[branch_N, column_N], branch_N, len(case["tokens"])) - torch.tensor(case["ref"])
    options = {name: case[name] for name in ("beta", "desirable_weight", "undesirable_weight")}
    if case["loss_type"] == "kto":
        options["kl"] = unpaired.kl_point(torch.tensor(case["kl_logratio"]).sum(), len(case["kl_logratio"]))
    return unpaired.LOSSES[case["loss_type"]](logratio_B, torch.tensor(case["label"]), **options).mean()


def as_pairs(logp):
    """What TRL's CPO and ORPO losses are given: averages where the loss wants averages, so completions of one token."""
    one_P = torch.ones(logp.shape[1])
    return Pairs(chosen_logp_P=logp[0], rejected_logp_P=logp[1], chosen_tokens_P=one_P, rejected_tokens_P=one_P)


def ours_cpo(case, logp):
    options = {name: case[name] for name in ("beta", "alpha", "label_smoothing", "simpo_gamma") if name in case}
    return reference_free.LOSSES[case["loss_type"]](as_pairs(logp), **options).mean()


def ours_orpo(case, logp):
    return reference_free.odds_ratio_loss(as_pairs(logp)).mean()


def ours_reward(case, logp):
    loss = bradley_terry_loss(logp[0], logp[1], torch.tensor(case.get("margin", 0.0)))
    return (loss + (case["center_rewards_coefficient"] or 0.0) * centring_loss(logp[0], logp[1])).mean()


OURS = {"dpo": ours_dpo, "kto": ours_kto, "cpo": ours_cpo, "orpo": ours_orpo, "reward": ours_reward}


@pytest.mark.parametrize("name", CASES)
def test_as_trl(name, theirs, record_property):
    case = CASES[name]
    logp = torch.tensor(case["logp"], requires_grad=True)
    loss = OURS[case["method"]](case, logp)
    (gradient,) = torch.autograd.grad(loss, logp)
    loss_there, gradient_there = theirs[name][0], torch.tensor(theirs[name][1])
    off = abs(loss.item() - loss_there) / max(1.0, abs(loss_there)), (gradient - gradient_there).abs().max().item()
    record_property("off", off)
    assert gradient_there.abs().max() > 1e-4, "a flat loss would agree with anything"
    assert max(off) <= TOLERANCE, f"loss and gradient are off by {off}"
