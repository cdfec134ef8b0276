"""Law *fast = plain*: each fast path equals the plain one over its option grid, or refuses the option.

The chunked head is compared with logits, log-softmax and autograd written out; the tree with the branch-by-branch paths
over whole runs (over families and backends it is law *tree*).
"""

from itertools import product

import pytest
import torch
from peft import LoraConfig, get_peft_model

from burnish.models.head import HeadError, head_of
from burnish.models.policy import Paths
from burnish.ops.logprobs import Head, chunked_logprobs, dense_logprobs
from tests.laws.exact import distance
from tests.laws.methods import cases
from tests.laws.runs import cut_step, make_run, take
from tests.models.families import tiny_model

V, H, R = 13, 5, 2
GRID = [
    dict(zip(("n", "bias", "scale", "softcap", "temperature", "factors"), values, strict=True))
    for values in product((0, 1, 7), (False, True), (1.0, 0.25), (None, 1.5), (1.0, 0.7), (1, 2, 3))
]
USES = ("logp", "entropy", "both")


def parts(options, dtype=torch.float64):
    """Leaves of a head with those options: inputs, weights, bias, targets."""
    generator = torch.Generator().manual_seed(0)
    widths = [H, R, R][: options["factors"]]
    inputs = [torch.randn(options["n"], k, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for k in widths]
    weights = [torch.randn(V, k, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for k in widths]
    bias = torch.randn(V, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() if options["bias"] else None
    return inputs, weights, bias, torch.randint(0, V, (options["n"],), generator=generator)


def plain(inputs, weights, bias, options):
    """Logits as the definition of `Head` writes them."""
    z = sum(x @ w.t() for x, w in zip(inputs, weights, strict=True))
    z = (z if bias is None else z + bias) * options["scale"]
    cap = options["softcap"]
    return (z if cap is None else cap * torch.tanh(z / cap)) / options["temperature"]


def loss_of(logp, entropy, use):
    weight = torch.linspace(-1, 2, len(logp), dtype=logp.dtype)
    terms = {"logp": [weight * logp], "entropy": [weight * entropy], "both": [weight * logp, weight.flip(0) * entropy]}
    return torch.stack([term.sum() for term in terms[use]]).sum()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 100])
def test_chunked_head(chunk_rows, use):
    for options in GRID:
        inputs, weights, bias, targets = parts(options)
        leaves = [*inputs, *weights, *([bias] if bias is not None else [])]
        head = Head(inputs=inputs, weights=weights, bias=bias, **{name: options[name] for name in ("scale", "softcap", "temperature")})
        fast = chunked_logprobs(head, targets, chunk_rows=chunk_rows, sum_sq=True)
        slow = dense_logprobs(plain(inputs, weights, bias, options), targets, sum_sq=True)
        for one, other in zip(fast, slow, strict=True):
            assert one.shape == (options["n"],)
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert not fast[2].requires_grad
        assert not fast[3].requires_grad
        found = torch.autograd.grad(loss_of(*fast[:2], use), leaves)
        wanted = torch.autograd.grad(loss_of(*slow[:2], use), leaves)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=lambda said, options=options: f"{options}: {said}")


def test_dense_log_probs_are_the_textbook_ones():
    """Logits [0, log 3]: p = 1/4, 3/4; H = log 4 - 3/4 log 3 = 0.5623 nats."""
    logits = torch.tensor([[1.0, 3.0]], dtype=torch.float64).log()
    logp, entropy, top1 = dense_logprobs(logits.expand(2, 2), torch.tensor([0, 1]))
    assert logp.exp().tolist() == pytest.approx([0.25, 0.75])
    assert entropy.tolist() == pytest.approx([0.5623351446188083] * 2)
    assert top1.tolist() == [0.0, 1.0]


def test_gradcheck():
    """By finite differences, so that the two ways cannot be wrong alike."""
    inputs, weights, bias, targets = parts({"n": 4, "bias": True, "factors": 2})

    def run(x, a, w, b, bias):
        head = Head(inputs=[x, a], weights=[w, b], bias=bias, scale=0.5, softcap=2.0, temperature=1.3)
        return chunked_logprobs(head, targets, chunk_rows=3)[:2]

    assert torch.autograd.gradcheck(run, (*inputs, *weights, bias))


@pytest.mark.parametrize("frozen", ["inputs", "weights", "bias"])
def test_what_needs_no_gradient_gets_none(frozen):
    inputs, weights, bias, targets = parts({"n": 3, "bias": True, "factors": 2})
    for leaf in {"inputs": inputs, "weights": weights, "bias": [bias]}[frozen]:
        leaf.requires_grad_(False)
    chunked_logprobs(Head(inputs=inputs, weights=weights, bias=bias), targets)[0].sum().backward()
    for name, leaves in {"inputs": inputs, "weights": weights, "bias": [bias]}.items():
        assert all((leaf.grad is None) == (name == frozen) for leaf in leaves)


def test_bfloat16_is_as_exact_as_its_inputs():
    """Logits and sums are float32: against float64 on the same rounded inputs the log-probs differ by their matmul's rounding only."""
    options = {"n": 64, "bias": True, "factors": 1}
    inputs, weights, bias, targets = parts(options, torch.bfloat16)
    logp, entropy, *_ = chunked_logprobs(Head(inputs=inputs, weights=weights, bias=bias), targets)
    exact = dense_logprobs(inputs[0].double() @ weights[0].double().t() + bias.double(), targets)
    assert logp.dtype == entropy.dtype == torch.float32
    assert (logp.double() - exact[0]).abs().max() < 0.05
    logp.sum().backward()
    assert weights[0].grad.dtype == torch.bfloat16


def test_autocast_does_not_reach_inside():
    inputs, weights, bias, targets = parts({"n": 5, "bias": False, "factors": 1}, torch.float32)
    outside = chunked_logprobs(Head(inputs=inputs, weights=weights), targets)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = chunked_logprobs(Head(inputs=inputs, weights=weights), targets)[0]
    assert torch.equal(outside, inside)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    inputs, weights, _, targets = parts({"n": 3, "bias": False, "factors": 1})
    with pytest.raises(ValueError, match=rf"^The temperature is {temperature}; give a positive one\.$"):
        chunked_logprobs(Head(inputs=inputs, weights=weights, temperature=temperature), targets)


def test_inputs_of_another_length_are_refused():
    inputs, weights, _, targets = parts({"n": 3, "bias": False, "factors": 1})
    with pytest.raises(ValueError, match=r"^The head has inputs of \[3\] rows for 2 targets; give one row for each\.$"):
        chunked_logprobs(Head(inputs=inputs, weights=weights), targets[:2])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"use_dora": True},
            "The adapter on the output head is a DoraLinearVariant; use plain LoRA there, or leave the head out of target_modules.",
        ),
        (
            {"alora_invocation_tokens": [5]},
            "The adapter on the output head is a ALoraLinearVariant; use plain LoRA there, or leave the head out of target_modules.",
        ),
        ({"lora_bias": True}, "The adapter on the output head has a bias of its own; set lora_bias=False."),
    ],
)
def test_adapters_that_the_chunked_head_does_not_do_are_refused(options, error):
    model = get_peft_model(tiny_model("llama"), LoraConfig(target_modules=["lm_head"], **options)).double()
    with pytest.raises(HeadError) as caught:
        head_of(model.get_base_model(), torch.zeros(2, 32, dtype=torch.float64))
    assert str(caught.value) == error


@cases("fast = plain")
@pytest.mark.parametrize("way", [Paths(backend="dense"), Paths(attention="branches"), Paths(attention="branches", head="model")], ids=str)
def test_whole_steps(float64, case, way):
    examples = case.examples(6)
    step = cut_step(examples, [[i] for i in range(6)])  # a balancing loss is each tree's own, so that a tree must be a branch
    wanted = take(make_run(case), step, evaluated=examples, max_tokens=1)
    found = take(make_run(case, paths=way), step, evaluated=examples, max_tokens=1)
    assert distance(found.gradient, wanted.gradient) <= 1e-10
    assert found.metrics == pytest.approx(wanted.metrics, rel=1e-10)
