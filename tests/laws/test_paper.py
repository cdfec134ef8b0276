"""Law *paper*: each numbered equation, worked by hand.

Learning-rate schedules: `tests/ops/test_schedules.py`; preference losses: `tests/ops/test_preference*.py`; what is learnt from rollouts,
term by term: `tests/ops/test_surrogates.py`, `test_advantages.py`, `test_ratios.py`, `test_kl.py` and `test_entropy.py`.
"""

import math
from dataclasses import replace

import pytest
import torch

from burnish.data.tree import build_tree
from burnish.distributed.launch import Launch
from burnish.loop import evaluate, optimizer_step
from burnish.models.attention import NAME, register
from burnish.models.policy import Policy
from burnish.ops import kl, surrogates
from burnish.ops.advantages import group_advantages, leave_one_out
from burnish.ops.likelihood import dft_loss, nll_loss
from burnish.ops.ratios import ratio
from burnish.types import Branch, Example, Segment, TokenOutputs
from tests.laws.methods import CASES
from tests.laws.runs import cut_step, make_run, take
from tests.laws.trees import alone
from tests.models.families import tiny_model

HALF_AND_QUARTER = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
CASE = {case.name: case for case in CASES}


def test_nll():
    """-log 1/2 = 0.6931 and -log 1/4 = 1.3863."""
    logp_N = HALF_AND_QUARTER.clone().requires_grad_()
    loss_N = nll_loss(logp_N)
    assert loss_N.tolist() == pytest.approx([0.6931471805599453, 1.3862943611198906])
    loss_N.sum().backward()
    assert logp_N.grad.tolist() == [-1.0, -1.0]


def test_dft():
    """Wu et al. 2025 (arXiv:2508.05629), eq. 9: -1/2 log 1/2 = 0.3466 and -1/4 log 1/4 = 0.3466; the weight has no gradient.

    So ∂/∂log p is -p: -1/2 and -1/4. With the gradient of the weight it would be -p (1 + log p): -0.1534 and 0.0966.
    """
    logp_N = HALF_AND_QUARTER.clone().requires_grad_()
    loss_N = dft_loss(logp_N)
    assert loss_N.tolist() == pytest.approx([0.34657359027997264] * 2)
    loss_N.sum().backward()
    assert logp_N.grad.tolist() == pytest.approx([-0.5, -0.25])


class Table(torch.nn.Module):
    """A policy that says the log-prob of each token whatever came before: a number per vocabulary entry."""

    def __init__(self, logp_V):
        super().__init__()
        self.logp_V = torch.nn.Parameter(torch.tensor(logp_V, dtype=torch.float64))

    def forward(self, tree):
        return TokenOutputs(logp_N=self.logp_V[tree.target_N])


def row(name, ids, context=1):
    given, learnt = ids[:context], ids[context:]
    parts = Segment(token_ids=given, source="prompt", trained=False), Segment(token_ids=learnt, source="model", trained=True)
    return Example(group_id=name, prompt=(), branches=(Branch(segments=parts),))


def table_run(case, logp_V):
    run = make_run(replace(case, family="llama"), model=tiny_model("llama"))
    table = Table(logp_V)
    run.policy = run.state.model = table
    run.state.optimizer = type(run.state.optimizer)(table, 0.0)
    return run


ROWS = (row("a", [0, 1, 2]), row("b", [0, 3]))
"""Trained: tokens 1 and 2, and token 3."""


@pytest.mark.parametrize("cut", [[[0, 1]], [[0], [1]]], ids=["one micro-batch", "two"])
def test_one_division_for_the_whole_step(cut):
    """Log-probs -1, -2 | -6: the loss is 9/3 = 3 in whatever micro-batches, never the mean of means (1.5 + 6)/2 = 3.75.

    ∂/∂logp is -1/3 for each of the three; the norm of that is sqrt(3)/3 = 0.5774.
    """
    run = table_run(CASE["sft-nll"], [0.0, -1.0, -2.0, -6.0])
    metrics = take(run, cut_step(ROWS, cut)).metrics
    assert metrics["loss total"] == pytest.approx(3.0)
    assert (metrics["nll total"], metrics["nll count"]) == (9.0, 3.0)
    assert metrics["grad_norm total"] == pytest.approx(0.5773502691896258)
    assert run.state.optimizer.gradient["logp_V"].tolist() == pytest.approx([0, -1 / 3, -1 / 3, -1 / 3])


def test_dft_through_the_loop():
    """p = 1/2, 1/4, 1/4: (0.3466 + 0.3466 + 0.3466) / 3; the reported nll stays -log p: (0.6931 + 2 * 1.3863) / 3."""
    run = table_run(CASE["sft-dft"], [0.0, math.log(0.5), math.log(0.25), math.log(0.25)])
    metrics = take(run, cut_step(ROWS, [[0], [1]])).metrics
    assert metrics["loss total"] == pytest.approx(0.34657359027997264)
    assert metrics["nll total"] / metrics["nll count"] == pytest.approx(1.155245300933242)
    assert run.state.optimizer.gradient["logp_V"].tolist() == pytest.approx([0, -1 / 6, -1 / 12, -1 / 12])


def test_clipping():
    """A gradient of norm 0.5774 clipped to 0.1 is 0.1 long; the norm that is reported is the one before."""
    run = table_run(CASE["sft-nll"], [0.0, -1.0, -2.0, -6.0])
    run.args = CASE["sft-nll"].config(max_grad_norm=0.1)
    optimizer_step(run, cut_step(ROWS, [[0, 1]]))
    assert run.state.optimizer.gradient["logp_V"].norm() == pytest.approx(0.1, rel=1e-5)
    assert run.state.meter["grad_norm"][0] == pytest.approx(0.5773502691896258)


@pytest.mark.parametrize("loss", ["sft-nll", "sft-dft"])
def test_perplexity(loss):
    """-log p = 1, 2 and 6: perplexity exp(9/3) = 20.0855, over tokens and not over rows; with dft too."""
    run = table_run(CASE[loss], [0.0, -1.0, -2.0, -6.0])
    run.eval_sets = {"eval": lambda: [build_tree([ROWS[0]]), build_tree([ROWS[1]])]}
    metrics = evaluate(run)
    assert metrics["eval_nll"] == pytest.approx(3.0)
    assert metrics["eval_perplexity"] == pytest.approx(20.085536923187668)
    dft = (math.exp(-1) + 2 * math.exp(-2) + 6 * math.exp(-6)) / 3
    assert metrics["eval_loss"] == pytest.approx(3.0 if loss == "sft-nll" else dft)


def test_nll_of_a_real_model_is_its_cross_entropy(float64):
    """The whole spine against torch's own cross-entropy on plain forwards: loss and gradient."""
    case = CASE["sft-nll"]
    examples, model = case.examples(5), tiny_model("llama")
    tree = build_tree(examples)
    loss = -alone(model, tree).mean()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    metrics = take(make_run(case), cut_step(examples, [[0, 3], [1, 2, 4]])).metrics
    assert metrics["loss total"] == pytest.approx(loss.item(), rel=1e-10)
    assert metrics["grad_norm total"] == pytest.approx(norm.item(), rel=1e-10)


def balanced(model, *, tokens=17):
    register()
    ids = torch.randint(0, 97, (tokens,), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        own = model(input_ids=ids[None], output_router_logits=True, use_cache=False).aux_loss
        model.set_attn_implementation(NAME)
        tree = build_tree([row("a", ids.tolist(), context=5)])
        return float(Policy(model, aux_loss=True)(tree).aux_loss), float(own)


def test_balancing_loss_is_the_models_own(float64):
    """Switch Transformer (Fedus et al. 2021), eq. 4, over all layers, as Qwen3-MoE's own forward returns it."""
    ours, own = balanced(tiny_model("qwen3-moe"))
    assert ours == pytest.approx(own, rel=1e-12)
    assert ours > 2.1, "out of balance"


def test_balancing_loss_of_an_undecided_router():
    """E Σ_i f_i P_i with P_i = 1/E: Σ_i f_i = k experts for each token, so the loss is k = 2 whoever is chosen."""
    model = tiny_model("qwen3-moe")
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.mlp.gate.weight)
    assert balanced(model)[0] == pytest.approx(2.0, rel=1e-6)


def test_balancing_loss_in_the_loop():
    """Its coefficient is 0.1, and it is divided by tokens where nll is divided by trained tokens."""
    case = CASE["sft-balanced-experts"]
    metrics = take(make_run(case, here=Launch()), cut_step(case.examples(3), [[0, 1, 2]])).metrics
    nll, balance = metrics["nll total"] / metrics["nll count"], metrics["aux_loss total"] / metrics["aux_loss count"]
    assert metrics["aux_loss count"] == sum(map(len, case.examples(3)))
    assert metrics["loss total"] == pytest.approx(nll + 0.1 * balance, rel=1e-6)


def grpo_by_hand(loss_type):
    """A prompt's two completions, of rewards 1 and 0. Of the first, two tokens: π = ½, ¼, π_old = ½, ½, π_ref = ¼, ¼. Of the second, one:
    π = ½, π_old = ¼, π_ref = ½."""
    branch_N, tokens_B = torch.tensor([0, 0, 1]), torch.tensor([2, 1])
    logp_N = torch.tensor([0.5, 0.25, 0.5], dtype=torch.float64).log().requires_grad_()
    old_N, ref_N = (torch.tensor(one, dtype=torch.float64).log() for one in ([0.5, 0.5, 0.25], [0.25, 0.25, 0.5]))
    reward_B, group_B, valid_B = torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), torch.tensor([True, True])
    advantage_B = (leave_one_out if loss_type == "rloo" else group_advantages)(reward_B, group_B, valid_B)
    rollouts = surrogates.Rollouts(logp_N=logp_N, old_logp_N=old_N, advantage_N=advantage_B[branch_N], branch_N=branch_N, tokens_B=tokens_B)
    kl_N = {"grpo": kl.k3(logp_N, ref_N), "dapo": kl.in_loss(logp_N, ref_N, ratio(rollouts.log_ratio_N)), "rloo": 0.0}[loss_type]
    loss_N = surrogates.LOSSES[loss_type](rollouts) + 0.1 * kl_N
    mean = surrogates.MEANS[loss_type]
    total = (surrogates.weight(mean, tokens_B, branch_N) * loss_N).sum() / surrogates.count(mean, tokens_B, 8)
    total.backward()
    return total.tolist(), logp_N.grad.tolist()


def test_grpo():
    """Shao et al. 2024 (arXiv:2402.03300), eq. 3 and 4, β = 0.1: A = ±½ / (√½ + 1e-4) = ±0.7070068; w = 1, ½ | 2;
    k3 = ½ - 1 + ln 2 = 0.1931472, 0 | 0.

    Tokens: -0.7070068 + 0.0193147 and -0.3535034 | 1.4140136. Loss: ½ (½ (-0.6876921 - 0.3535034) + 1.4140136) = 0.4467079.
    ∂/∂log π: ¼ (-0.7070068 + 0.1 · ½) = -0.1642517 and ¼ · -0.3535034 = -0.0883758 | ½ · 1.4140136 = 0.7070068.
    """
    value, gradient = grpo_by_hand("grpo")
    assert value == pytest.approx(0.4467079, abs=1e-7)
    assert gradient == pytest.approx([-0.1642517, -0.0883758, 0.7070068], abs=1e-7)


def test_dapo_with_an_unbiased_kl():
    """DAPO (arXiv:2503.14476), eq. 8, all three tokens alike; and DeepSeek-V3.2 (arXiv:2512.02556), whose KL of a token, w k3, has the
    gradient w (k3 + 1 - π_ref/π) = ln 2 = 0.6931472 at the first, and 0 elsewhere.

    Loss: ⅓ (-0.6876921 - 0.3535034 + 1.4140136) = 0.1242727. ∂/∂log π: ⅓ (-0.7070068 + 0.0693147) = -0.2125640, ⅓ · -0.3535034 = -0.1178345
    | ⅓ · 1.4140136 = 0.4713379.
    """
    value, gradient = grpo_by_hand("dapo")
    assert value == pytest.approx(0.1242727, abs=1e-7)
    assert gradient == pytest.approx([-0.2125640, -0.1178345, 0.4713379], abs=1e-7)


def test_rloo():
    """Ahmadian et al. 2024 (arXiv:2402.14740), eq. 8: A = 1 - 0 and 0 - 1; completions' ratios are ½ and 2: ½ (-½ + 2) = 0.75.

    ∂/∂log π: ½ · -½ at both tokens of the first, ½ · 2 at the second's.
    """
    assert grpo_by_hand("rloo") == (pytest.approx(0.75), pytest.approx([-0.25, -0.25, 1.0]))
