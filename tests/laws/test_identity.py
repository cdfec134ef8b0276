"""Law *identity*: where the policy is its reference, the log-ratios are exactly 0 and the loss is its value there, worked by hand."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from burnish.data.tree import build_tree
from tests.laws.methods import build_trainer, cases
from tests.laws.rollout_cases import groups
from tests.laws.runs import cut_step, make_run, same_model, take
from tests.models.families import tiny_model

LOG2 = math.log(2)
AT_EQUALITY = {
    "sigmoid": LOG2,  # -log σ(0), and smoothing mixes it with itself
    "hinge": 1.0,  # max(0, 1 - 0)
    "ipo": (0.5 / 0.3) ** 2,  # (0 - 1/(2β))²
    "exo_pair": -0.5 * (math.log(4) + math.log(1 - 1e-3) + math.log(1e-3)),  # KL((½, ½) || (1-ε, ε))
    "nca_pair": 2 * LOG2,  # log 2 + ½ log 2 + ½ log 2
    "robust": LOG2,  # ((1-ε) log 2 - ε log 2) / (1-2ε)
    "bco_pair": 2 * LOG2,
    "sppo_hard": 2 * (0.5 / 0.3) ** 2,
    "aot": LOG2,
    "aot_unpaired": LOG2,
    "apo_zero": 1.0,  # ½ + ½
    "apo_down": 1.0,
    "discopop": 0.5 * LOG2 + 0.5,  # log 2 (1 - ½) + e^0 ½
    "sigmoid_norm": None,  # weighted by what the policy thinks of each pair
    "sigmoid_trl": LOG2,
    "bco_pair_trl": 2 * LOG2,
    "kto": None,  # λ/2, by label
    "apo_zero_unpaired": None,
    "bco": LOG2,
    "bco_trl": LOG2,
}


@cases("identity")
def test_the_loss_at_equality(case, float64):
    run = make_run(case, reference=same_model)
    examples = case.examples(6)
    metrics = take(run, cut_step(examples, [range(3), range(3, 6)])).metrics
    for name, total in metrics.items():
        if name.startswith(("rewards/", "kl ")) and name.endswith("total"):
            assert abs(total) <= 1e-12, name
    wanted = AT_EQUALITY.get(case.loss)
    if case.name.startswith("kto"):
        tree = build_tree(examples)
        good, bad = (int((tree.label_B == label).sum()) for label in (1, 0))
        wanted = 0.5 * (1.3 * good + bad) / (good + bad)
    if wanted is not None and case.name != "dpo-mixture":
        assert metrics["loss total"] == pytest.approx(wanted, rel=1e-9)


@cases("identity")
def test_completions_of_the_policy_itself(case, float64):
    """Every ratio is exactly 1, nothing is clipped, and weights of rollouts that were not drawn from another distribution are 1."""
    if not case.samples:
        pytest.skip("learns from no completions of its own")
    run = make_run(case, reference=same_model)
    metrics = take(run, cut_step(groups(8, stale=False, left_out=False), [range(3), range(3, 8)])).metrics
    assert metrics["ratio total"] == metrics["ratio count"] > 0
    shares = [name for name in metrics if name.startswith(("clip_ratio/", "cispo_clip_ratio")) and name.endswith("total")]
    assert len(shares) == {"cispo": 1, "sapo": 0, "vespo": 0}.get(case.loss, 3)
    assert all(metrics[name] == 0.0 for name in shares)
    if "vespo/phi_seq_mean total" in metrics:  # φ(1) = 1
        assert metrics["vespo/phi_seq_mean total"] == pytest.approx(metrics["vespo/phi_seq_mean count"], rel=1e-6)


STARTS = {
    "full": lambda: (tiny_model("llama", dtype=torch.float32), None),
    "lora from scratch": lambda: (tiny_model("llama", dtype=torch.float32), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])),
    "lora continued": lambda: (continued(), None),
}


def continued():
    torch.manual_seed(2)
    model = get_peft_model(tiny_model("llama", dtype=torch.float32), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("start", STARTS)
@cases("identity")
def test_the_first_step_of_a_run(case, start, tmp_path):
    """The trainer's own reference: log-ratios are 0 to the bit where the reference sees the policy's own trees, and to rounding else."""
    if start != "full" and "resume" in case.exempt:
        pytest.skip(case.exempt["resume"])
    model, adapter = STARTS[start]()
    trainer = build_trainer(case, model, tmp_path, max_steps=1, save_strategy="no", logging_steps=1, peft_config=adapter)
    trainer.train()
    line = trainer.state.log_history[0]
    exact = case.samples or (case.module in ("dpo", "bco") and case.name != "dpo-precomputed")
    for name in ("rewards/chosen", "rewards/rejected", "kl"):
        assert abs(line.get(name, 0.0)) <= (0.0 if exact else 1e-5), name
    if case.samples:
        assert line.get("ratio", 1.0) == 1.0
        assert all(value == 0.0 for name, value in line.items() if name.startswith(("clip_ratio/", "cispo_clip_ratio")))
