"""Losses of learning from rollouts, their gradients, their metrics, advantages and importance weights, beside TRL 1.16's own code on the
same tensors, to 1e-6.

Needs an interpreter with TRL 1.16, named by BURNISH_TRL_PYTHON; skipped without one. Log-probs are multiples of 1/64.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from burnish.ops import advantages as adv
from burnish.ops import clipping, entropy, kl, ratios, surrogates
from burnish.ops.pairs import options_of
from burnish.ops.surrogates import LOSSES, MEANS, Rollouts

PYTHON = os.environ.get("BURNISH_TRL_PYTHON")
TOLERANCE = 1e-6
TOKENS = [3, 7, 1, 4, 6, 2]
ADVANTAGES = [1.25, -0.75, 0.5, -1.5, 0.0, -0.25]
LONGEST = max(TOKENS)
MASK = torch.arange(LONGEST) < torch.tensor(TOKENS)[:, None]
BRANCH_N, COLUMN_N = MASK.nonzero(as_tuple=True)
TOKENS_B = torch.tensor(TOKENS)


def sixty_fourths(*shape, generator, low=-96, high=0):
    return torch.randint(low, high, shape, generator=generator) / 64.0


def loss_case(seed, method="grpo", *, importance=None, sampled=False, **options):
    generator = torch.Generator().manual_seed(seed)
    size = (len(TOKENS), LONGEST)
    old = sixty_fourths(*size, generator=generator)
    case = {"method": method, "tokens": TOKENS, "advantage": ADVANTAGES, "options": options, "old_logp": old.tolist()}
    case["logp"] = (old + sixty_fourths(*size, generator=generator, low=-40, high=40)).tolist()
    case["ref_logp"] = (old + sixty_fourths(*size, generator=generator, low=-40, high=40)).tolist()
    case["entropy"] = sixty_fourths(*size, generator=generator, low=0, high=200).tolist()
    if importance:
        weights = sixty_fourths(*(size if importance == "token" else (size[0], 1)), generator=generator, low=0, high=150)
        case["importance"] = (weights.masked_fill(~MASK, 1.0) if importance == "token" else weights).tolist()
    if sampled:
        case["sampled_logp"] = (old + sixty_fourths(*size, generator=generator, low=-40, high=40)).tolist()
    return case


CLIPPED = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo"]
LOSS_CASES = {
    **{name: loss_case(seed, loss_type=name) for seed, name in enumerate([*CLIPPED, "sapo", "vespo"])},
    "cispo": loss_case(20, loss_type="cispo", epsilon_high=1.25),
    **{f"{name}, sequence": loss_case(seed, loss_type=name, importance_sampling_level="sequence") for seed, name in enumerate(CLIPPED)},
    "sapo, sequence": loss_case(21, loss_type="sapo", importance_sampling_level="sequence"),
    "cispo, sequence": loss_case(22, loss_type="cispo", importance_sampling_level="sequence", epsilon_high=1.0625),
    "clip-higher": loss_case(23, loss_type="dapo", epsilon=0.25, epsilon_high=0.375),
    "two-sided": loss_case(24, loss_type="dapo", delta=1.5),
    "sapo, temperatures": loss_case(25, loss_type="sapo", sapo_temperature_pos=0.75, sapo_temperature_neg=1.5),
    "vespo, powers": loss_case(
        26,
        loss_type="vespo",
        vespo_k_pos=1.5,
        vespo_lambda_pos=2.5,
        vespo_k_neg=1.25,
        vespo_lambda_neg=0.75,
        importance_sampling_level="token",
    ),
    "gspo": loss_case(27, loss_type="grpo", importance_sampling_level="sequence", epsilon=0.0625, epsilon_high=0.125),
    "KL": loss_case(28, loss_type="grpo", beta=0.25),
    "KL, uncorrected": loss_case(29, loss_type="dapo", beta=0.25, use_bias_correction_kl=False),
    "KL, sequence": loss_case(30, loss_type="dapo", beta=0.25, importance_sampling_level="sequence"),
    "top entropy": loss_case(31, loss_type="dapo", top_entropy_quantile=0.375),
    "off-policy mask": loss_case(32, loss_type="grpo", off_policy_mask_threshold=0.0625),
    "off-policy mask, sampler": loss_case(33, loss_type="grpo", off_policy_mask_threshold=0.0625, sampled=True),
    "token weights": loss_case(34, loss_type="dapo", corrected=True, importance="token"),
    "sequence weights": loss_case(35, loss_type="grpo", corrected=True, importance="sequence", beta=0.125),
    "vespo, token weights": loss_case(36, loss_type="vespo", corrected=True, importance="token"),
    "entropy bonus": loss_case(37, loss_type="grpo", entropy_coef=0.125),
    "entropy bonus of the top": loss_case(38, loss_type="dapo", entropy_coef=0.125, top_entropy_quantile=0.5),
    "gmpo": loss_case(39, "gmpo", epsilon=0.4),
    "gmpo, KL": loss_case(40, "gmpo", epsilon=0.25, epsilon_high=0.375, beta=0.25),
    "gmpo, top entropy": loss_case(41, "gmpo", epsilon=0.4, top_entropy_quantile=0.5),
    "rloo": loss_case(42, "rloo", epsilon=0.2),
    "rloo, clip-higher": loss_case(43, "rloo", epsilon=0.25, epsilon_high=0.5),
}

NAN = float("nan")
ONE = [[0.5], [0.25], [1.0], [0.5], [-1.0], [3.0], [0.0], [0.125]]
HOLES = [[0.5], [NAN], [1.0], [0.5], [-1.0], [NAN], [NAN], [0.125]]
TWO = [[0.5, 10.0], [0.25, 20.0], [1.0, NAN], [0.5, 5.0], [NAN, 1.0], [3.0, 2.0], [NAN, NAN], [0.125, -4.0]]


def reward_case(reward, method="grpo_advantages", *, weights=None, generations=4, **options):
    return {"method": method, "reward": reward, "options": {"num_generations": generations, **options}} | (
        {"weights": weights} if weights else {}
    )


def kl_case():
    generator = torch.Generator().manual_seed(50)
    logps = {name: sixty_fourths(8, 3, generator=generator).tolist() for name in ("old_logp", "ref_logp")}
    return {**reward_case(ONE, "rloo_advantages", beta=0.25), **logps, "tokens": [3, 2, 1, 3, 3, 2, 1, 1]}


ADVANTAGE_CASES = {
    "group": reward_case(ONE),
    "group, failures": reward_case(HOLES),
    "batch": reward_case(ONE, scale_rewards="batch"),
    "batch, failures": reward_case(HOLES, scale_rewards="batch"),
    "none": reward_case(HOLES, scale_rewards="none"),
    "pairs": reward_case(ONE, generations=2),
    "weighted": reward_case(TWO, weights=[1.0, 0.25]),
    "normalize then sum": reward_case(TWO, weights=[1.0, 0.25], multi_objective_aggregation="normalize_then_sum"),
    "rloo": reward_case(ONE, "rloo_advantages"),
    "rloo, failures": reward_case(HOLES, "rloo_advantages"),
    "rloo, normalized": reward_case(HOLES, "rloo_advantages", normalize_advantages=True),
    "rloo, KL": kl_case(),
}


def weight_case(mode, high=3.0, low=None):
    generator = torch.Generator().manual_seed(60)
    old = sixty_fourths(len(TOKENS), LONGEST, generator=generator)
    sampled = old + sixty_fourths(len(TOKENS), LONGEST, generator=generator, low=-24, high=24)
    sampled[1, 2] = NAN
    case = {"method": "grpo_advantages", "tokens": TOKENS, "reward": [[float(i)] for i in range(len(TOKENS))]}
    case["options"] = {
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_max": high,
        "vllm_importance_sampling_clip_min": low,
    }
    return case | {"old_logp": old.tolist(), "sampled_logp": sampled.tolist()}


WEIGHT_CASES = {
    **{mode: weight_case(mode) for mode in ratios.CORRECTIONS},
    **{f"{mode}, both bounds": weight_case(mode, high=1.5, low=0.75) for mode in ratios.CORRECTIONS},
    "no upper bound": weight_case("token_mask", high=None, low=0.5),
}
CASES = {**LOSS_CASES, **{f"A {n}": c for n, c in ADVANTAGE_CASES.items()}, **{f"W {n}": c for n, c in WEIGHT_CASES.items()}}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    if not PYTHON:
        pytest.skip("BURNISH_TRL_PYTHON names no interpreter with TRL 1.16")
    folder = tmp_path_factory.mktemp("trl")
    (folder / "in.json").write_text(json.dumps(list(CASES.values())))
    done = subprocess.run(
        [PYTHON, str(Path(__file__).with_name("rollouts_trl.py")), str(folder / "in.json"), str(folder / "out.json")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, json.loads((folder / "out.json").read_text()), strict=True))


def flat(case, name):
    return torch.tensor(case[name])[BRANCH_N, COLUMN_N]


def ours_of(case, logp, entropies):
    """The loss of a whole step, put together as a method does it; and what it logs."""
    options = {"epsilon": 0.2, **case["options"]}
    name = options.get("loss_type", case["method"])
    logp_N, entropy_N = logp[BRANCH_N, COLUMN_N], entropies[BRANCH_N, COLUMN_N]
    advantage_N = torch.tensor(case["advantage"])[BRANCH_N]
    factor_N, kept_N, importance_N = torch.ones(len(logp_N)), None, None
    if "top_entropy_quantile" in options:
        threshold = entropy.top_entropy_threshold(entropy_N, top_entropy_quantile=options["top_entropy_quantile"])
        kept_N = entropy.top_entropy_mask(entropy_N, threshold)
    if "importance" in case:
        importance_N = torch.tensor(case["importance"]).expand(-1, LONGEST)[BRANCH_N, COLUMN_N]
    given = {"logp_N": logp_N, "old_logp_N": flat(case, "old_logp"), "advantage_N": advantage_N, "branch_N": BRANCH_N, "tokens_B": TOKENS_B}
    rollouts = Rollouts(**given, importance_N=importance_N, kept_N=kept_N)
    loss_N = LOSSES[name](rollouts, **{one: options[one] for one in options_of(LOSSES[name]) if one in options})
    if importance_N is not None and name != "vespo":
        factor_N = factor_N * importance_N
    if kept_N is not None and name != "gmpo":
        factor_N = factor_N * kept_N
    if "off_policy_mask_threshold" in options:
        sampled_N = flat(case, "sampled_logp" if "sampled_logp" in case else "old_logp")
        threshold = options["off_policy_mask_threshold"]
        factor_N = factor_N * ratios.off_policy_mask(advantage_N, logp_N, sampled_N, BRANCH_N, TOKENS_B, threshold=threshold)
    loss_N, metrics = loss_N * factor_N, {}
    if "beta" in options:
        kl_N = kl.k3(logp_N, flat(case, "ref_logp"))
        if options.get("use_bias_correction_kl", name != "gmpo"):
            kl_N = kl.in_loss(
                logp_N, flat(case, "ref_logp"), surrogates.level_ratio(rollouts, options.get("importance_sampling_level", "token"))
            )
        loss_N, metrics["kl"] = loss_N + options["beta"] * kl_N, kl_N.mean().item()
    total = (surrogates.weight(MEANS[name], TOKENS_B, BRANCH_N) * loss_N).sum() / surrogates.count(MEANS[name], TOKENS_B, 16)
    if "entropy_coef" in options:
        acting_N = torch.ones(len(logp_N)) if kept_N is None else kept_N.float()
        total = total - options["entropy_coef"] * (entropy_N * acting_N).sum() / acting_N.sum()
    sums = clipping.SUMS[name](rollouts, **{one: options[one] for one in options_of(clipping.SUMS[name]) if one in options})
    return total, metrics | {name: one.total.item() / one.count for name, one in sums.items()}


def off(ours, theirs):
    ours, theirs = torch.as_tensor(ours, dtype=torch.float64), torch.as_tensor(theirs, dtype=torch.float64)
    return ((ours - theirs).abs() / theirs.abs().clamp(min=1.0)).max().item()


@pytest.mark.parametrize("name", LOSS_CASES)
def test_losses(name, theirs):
    case = LOSS_CASES[name]
    logp, entropies = (torch.tensor(case[one], requires_grad=True) for one in ("logp", "entropy"))
    loss, metrics = ours_of(case, logp, entropies)
    gradient, of_entropy = torch.autograd.grad(loss, (logp, entropies), allow_unused=True, materialize_grads=True)
    loss_there, gradient_there, of_entropy_there, metrics_there = theirs[name]
    assert torch.tensor(gradient_there).abs().max() > 1e-4, "a flat loss would agree with anything"
    assert off(loss.item(), loss_there) <= TOLERANCE
    assert off(gradient, gradient_there) <= TOLERANCE
    if of_entropy_there is not None:
        assert off(of_entropy, of_entropy_there) <= TOLERANCE
    assert {one: metrics_there[one] for one in metrics} == pytest.approx(metrics, abs=TOLERANCE)


def ours_advantages(case):
    reward_BK = torch.tensor(case["reward"], dtype=torch.float64)
    valid_BK, options = ~reward_BK.isnan(), case["options"]
    weight_K = torch.tensor(case.get("weights", [1.0]))
    group_B = torch.arange(len(reward_BK)) // options["num_generations"]
    if options.get("multi_objective_aggregation") == "normalize_then_sum":
        return adv.normalize_then_sum(reward_BK, group_B, valid_BK, weight_K)
    reward_B, valid_B = adv.total_reward(reward_BK, valid_BK, weight_K)
    if case["method"] == "grpo_advantages":
        return adv.group_advantages(reward_B, group_B, valid_B, scale_rewards=options.get("scale_rewards", "group"))
    if "beta" in options:
        mask = torch.arange(3) < torch.tensor(case["tokens"])[:, None]
        kl_B = (kl.in_reward(torch.tensor(case["old_logp"]), torch.tensor(case["ref_logp"])) * mask).sum(1)
        reward_B = reward_B - options["beta"] * kl_B
    advantage_B = adv.leave_one_out(reward_B, group_B, valid_B)
    return adv.normalize_advantages(advantage_B, reward_B, group_B, valid_B) if options.get("normalize_advantages") else advantage_B


@pytest.mark.parametrize("name", ADVANTAGE_CASES)
def test_advantages(name, theirs):
    there = theirs[f"A {name}"]
    assert max(map(abs, there)) > 0.1
    assert off(ours_advantages(ADVANTAGE_CASES[name]), there) <= TOLERANCE


@pytest.mark.parametrize("name", WEIGHT_CASES)
def test_importance_weights(name, theirs):
    case = WEIGHT_CASES[name]
    mode, high, low = (case["options"][f"vllm_importance_sampling_{one}"] for one in ("mode", "clip_max", "clip_min"))
    ours_N = ratios.importance_weights(
        flat(case, "old_logp"), flat(case, "sampled_logp"), BRANCH_N, TOKENS_B, mode=mode, clip_max=high, clip_min=low
    )
    there_N = torch.tensor(theirs[f"W {name}"]).expand(-1, LONGEST)[BRANCH_N, COLUMN_N]
    assert len(set(there_N.tolist())) > 2
    assert off(ours_N, there_N) <= TOLERANCE
