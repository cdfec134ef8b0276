"""ProFit: the equations worked by hand, what it shares with SFT, and the command line."""

import math
import subprocess
import sys

import pytest
import torch

from burnish import ConfigError, SFTConfig
from burnish.data.tree import build_tree
from burnish.experimental.profit import ProFitConfig
from burnish.experimental.profit.method import loss_and_metrics, mask, profit_loss
from burnish.methods import sft
from burnish.types import Branch, Example, Segment, TokenOutputs

HALF_TENTH_FIFTIETH = torch.tensor([0.5, 0.1, 0.02], dtype=torch.float64).log()


def test_mask():
    """Eq. 4, τ = 0.1: [1/2 > 0.1] = 1, [0.1 > 0.1] = 0, [0.02 > 0.1] = 0. Turned around: 0, 0, 1. Exactly τ is in neither."""
    exact = torch.tensor([0.5, 0.25, 0.125]).log()  # powers of 2 survive log and exp
    assert mask(exact, 0.25, "higher").tolist() == [True, False, False]
    assert mask(exact, 0.25, "lower").tolist() == [False, False, True]
    assert mask(HALF_TENTH_FIFTIETH, 0.05, "higher").tolist() == [True, True, False]


def test_loss():
    """Eq. 5, τ = 0.05: -log 1/2 = 0.6931, -log 1/10 = 2.3026, and 0 for the third, which has no gradient: -1, -1, 0.

    Divided by all three tokens, not by the two that are kept: (0.6931 + 2.3026) / 3 = 0.9986.
    """
    logp_N = HALF_TENTH_FIFTIETH.clone().requires_grad_()
    loss_N = profit_loss(logp_N, mask(logp_N, 0.05, "higher"))
    assert loss_N.tolist() == pytest.approx([0.6931471805599453, 2.302585092994046, 0.0])
    loss_N.sum().backward()
    assert logp_N.grad.tolist() == [-1.0, -1.0, 0.0]
    loss = loss_and_metrics(tree(), TokenOutputs(logp_N=HALF_TENTH_FIFTIETH), ProFitConfig(prob_threshold=0.05)).terms["loss"]
    assert float(loss.total) / loss.count == pytest.approx(0.9985774245179971)


def test_a_token_without_any_probability_is_left_out_and_leaves_no_nan():
    """log 0 = -inf, and 0 · inf would be NaN."""
    logp_N = torch.tensor([-math.inf, -1.0], requires_grad=True)
    loss_N = profit_loss(logp_N, mask(logp_N, 0.1, "higher"))
    loss_N.sum().backward()
    assert loss_N.tolist() == [0.0, 1.0]
    assert logp_N.grad.tolist() == [0.0, -1.0]


def tree():
    parts = Segment(token_ids=[5], source="prompt", trained=False), Segment(token_ids=[6, 7, 8], source="model", trained=True)
    return build_tree([Example(group_id="a", prompt=(), branches=(Branch(segments=parts),))])


def test_both_directions_add_up_to_sft():
    """Where no token is of exactly that probability; the metrics are SFT's, and say which share was kept."""
    outputs = TokenOutputs(logp_N=HALF_TENTH_FIFTIETH, entropy_N=torch.ones(3))
    plain = sft.loss_and_metrics(tree(), outputs, SFTConfig())
    halves = [loss_and_metrics(tree(), outputs, ProFitConfig(prob_threshold=0.05, threshold_direction=d)) for d in ("higher", "lower")]
    assert sum(float(half.terms["loss"].total) for half in halves) == pytest.approx(float(plain.terms["loss"].total))
    assert [(float(half.metrics["kept_share"].total), half.metrics["kept_share"].count) for half in halves] == [(2, 3), (1, 3)]
    assert all(float(half.metrics["nll"].total) == float(plain.metrics["nll"].total) for half in halves)


def test_the_balancing_loss_is_sfts():
    outputs = TokenOutputs(logp_N=HALF_TENTH_FIFTIETH, aux_loss=torch.tensor(2.0))
    found = loss_and_metrics(tree(), outputs, ProFitConfig(), aux_loss_coef=0.1).terms["aux"]
    assert (float(found.total), found.count) == (pytest.approx(0.8), 4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss_type": "dft"}, "loss_type='dft' is refused: ProFit counts a token or leaves it out; use SFT for weights."),
        ({"prob_threshold": 0}, "prob_threshold must be a number above 0 and below 1, not 0."),
        ({"prob_threshold": 1.0}, "prob_threshold must be a number above 0 and below 1, not 1.0."),
        ({"threshold_direction": "middle"}, "threshold_direction must be 'higher' or 'lower', not 'middle'."),
    ],
)
def test_refused(options, sentence):
    with pytest.raises(ConfigError) as caught:
        ProFitConfig(**options)
    assert str(caught.value) == sentence


def run(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False, **options)


def test_it_warns_once_and_is_imported_only_when_it_is_used():
    ask = """
import sys, warnings
import burnish
assert "burnish.experimental" not in sys.modules
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    burnish.experimental.profit.ProFitConfig()
    assert "torch" not in sys.modules
    import burnish.experimental.profit
    burnish.experimental.profit.ProFitTrainer
print(*(one.message for one in seen if "experimental" in str(one.message)), sep="\\n")
"""
    done = run("-c", ask)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("burnish.experimental.profit is experimental (owner: ")
    assert line.endswith("): it may change or go without notice.")


def test_from_the_command_line(tmp_path):
    from burnish.cli.demo import write_jsonl
    from burnish.demo import load_path, make_rows

    write_jsonl(tmp_path / "rows.jsonl", make_rows(8, seed=0, split="train"))
    model, data = ["--model_name_or_path", str(load_path())], ["--dataset_name", "rows.jsonl"]
    options = [
        "--max_steps",
        "2",
        "--batch_size",
        "4",
        "--prob_threshold",
        "0.01",
        "--output_dir",
        "out",
        "--assistant_only_loss",
        "--dataset_cache_dir",
        "cache",
    ]
    done = run("-m", "burnish", "experimental", "profit", *model, *data, *options, "--logging_steps", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("is experimental") == 1
    metrics = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 2
    assert all('"kept_share": 0.' in line for line in metrics)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_defaults_are_those_of_the_papers_code():
    assert (ProFitConfig().prob_threshold, ProFitConfig().threshold_direction) == (0.1, "higher")
