"""The algebra of sampling: by hand, beside transformers' logits processors, and over the whole grid of options."""

import math
from itertools import product

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from burnish.ops import sampling
from burnish.ops.logprobs import dense_logprobs
from burnish.ops.sampling import Shape, draw

GRID = [
    Shape(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    for temperature, top_k, top_p, min_p, penalty in product((0.6, 1.0, 1.5), (0, 1, 7), (0.4, 0.95, 1.0), (0.0, 0.2), (1.0, 1.3))
]


def logits_of(rows=6, vocabulary=600, seed=0, dtype=torch.float32, scale=2.0):
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)).to(dtype) * scale


def seen_of(z, seed=1):
    """(the ids of each row's context, the same as a mask)."""
    ids = torch.randint(0, z.shape[1], (len(z), 40), generator=torch.Generator().manual_seed(seed))
    return ids, torch.zeros(z.shape, dtype=torch.bool).scatter_(1, ids, True)


def theirs(z, ids, shape):
    """Log-probs as `generate` has them: transformers' processors in its order, then softmax."""
    z = z.clone()
    if shape.repetition_penalty != 1:
        z = RepetitionPenaltyLogitsProcessor(shape.repetition_penalty)(ids, z)
    z = TemperatureLogitsWarper(shape.temperature)(ids, z)
    if shape.top_k:
        z = TopKLogitsWarper(shape.top_k)(ids, z)
    if shape.top_p < 1:
        z = TopPLogitsWarper(shape.top_p)(ids, z)
    if shape.min_p:
        z = MinPLogitsWarper(shape.min_p)(ids, z)
    return z.log_softmax(-1)


def spread(rows, count):
    """`count` uniforms evenly spread over (0, 1), for each row: `[count, rows]`."""
    return ((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None].expand(count, rows)


@pytest.mark.parametrize("shape", GRID, ids=str)
def test_beside_transformers(shape):
    """What is never drawn there is never drawn here; what is drawn has the log-prob that it has there, and the policy's own beside it."""
    z, count = logits_of(), 400
    ids, seen = seen_of(z)
    uniform = spread(len(z), count).flatten()
    found = draw(z.repeat(count, 1), uniform, shape, seen.repeat(count, 1))
    picked = found.token_R.view(count, len(z)).t()
    policy, wanted = (z / shape.temperature).log_softmax(-1), theirs(z, ids, shape)
    torch.testing.assert_close(found.logp_R.view(count, -1).t(), policy.gather(1, picked), atol=2e-5, rtol=0)
    assert (found.sampled_logp_R is None) == (not shape.changed)
    if found.sampled_logp_R is not None:
        torch.testing.assert_close(found.sampled_logp_R.view(count, -1).t(), wanted.gather(1, picked), atol=2e-5, rtol=0)
    drawn = torch.zeros_like(z).scatter_add_(1, picked, torch.ones(picked.shape))
    # evenly spread uniforms give every token its probability to within one of them at each end of its interval
    assert (drawn / count - wanted.exp()).abs().max() <= 1 / count + 1e-4


def test_by_hand():
    """Logits log(1, 2, 3, 4): probabilities 0.1, 0.2, 0.3, 0.4. A uniform of 0.35 stands in the third's interval, 0.3 to 0.6.

    Top-k 2 leaves 3/7 and 4/7, the likeliest first: 0.35 < 4/7 is the fourth token. Top-p 0.65 leaves 0.4 and 0.3, min-p 0.6 too
    (0.6 * 0.4 = 0.24). At temperature 1/2 probabilities are as squares, 1, 4, 9, 16 of 30: 0.35 stands between 5/30 and 14/30.
    A penalty of 2 on the fourth token makes its logit log 2: 1, 2, 3, 2 of 8, and 0.35 stands between 1/8 and 3/8: the second token.
    """
    seen = torch.tensor([[False, False, False, True]])
    table = [
        (Shape(), 2, 0.3, None),
        (Shape(top_k=2), 3, 0.4, 4 / 7),
        (Shape(top_p=0.65), 3, 0.4, 4 / 7),
        (Shape(min_p=0.6), 2, 0.3, 3 / 7),
        (Shape(temperature=0.5), 2, 0.3, None),
        (Shape(repetition_penalty=2.0), 1, 0.2, 2 / 8),
        (Shape(temperature=0), 3, 0.4, None),
        (Shape(temperature=0, top_k=3), 3, 0.4, 1.0),
        (Shape(temperature=0, repetition_penalty=2.0), 2, 0.3, 1.0),
    ]
    for shape, token, policy, sampled in table:
        z = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
        found = draw(z, torch.tensor([0.35], dtype=torch.float64), shape, seen)
        policy = 9 / 30 if shape.temperature == 0.5 else policy
        assert found.token_R.tolist() == [token], shape
        assert found.logp_R.tolist() == pytest.approx([math.log(policy)], abs=1e-6), shape
        assert (found.sampled_logp_R is None) == (sampled is None), shape
        if sampled is not None:
            assert found.sampled_logp_R.tolist() == pytest.approx([math.log(sampled)], abs=1e-6), shape


def test_a_negative_logit_is_multiplied():
    """CTRL's penalty of 2 makes -1 to -2 and 1 to 1/2: of (-1, 1) with both seen, probabilities exp(-2) and exp(1/2) over their sum."""
    found = draw(torch.tensor([[-1.0, 1.0]]), torch.tensor([0.5]).double(), Shape(repetition_penalty=2.0), torch.tensor([[True, True]]))
    assert found.sampled_logp_R.tolist() == pytest.approx([0.5 - math.log(math.exp(-2) + math.exp(0.5))], abs=1e-6)


@pytest.mark.parametrize("vocabulary", [3, sampling.BLOCK, 2 * sampling.BLOCK + 1, 5 * sampling.BLOCK - 1])
def test_the_inverse_in_blocks_is_the_inverse(vocabulary):
    z = logits_of(8, vocabulary, dtype=torch.float64)
    cumulative = z.softmax(-1).cumsum(-1)
    for uniform in torch.rand(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)):
        found = draw(z.clone(), uniform, Shape()).token_R
        assert torch.equal(found, (cumulative <= uniform[:, None]).sum(1))


@pytest.mark.parametrize("shape", [Shape(), Shape(top_p=0.9), Shape(min_p=0.1), Shape(top_k=2)])
def test_the_ends_of_the_interval(shape):
    """The smallest and the largest uniform give tokens that can be drawn, with many of probability 0 at both ends of the vocabulary."""
    z = torch.full((2, 1000), -torch.inf)
    z[:, 400:403] = torch.tensor([1.0, 2.0, 1.5])
    for uniform in (2.0**-53, 1 - 2.0**-53):
        found = draw(z.clone(), torch.full((2,), uniform, dtype=torch.float64), shape)
        assert torch.isfinite(found.logp_R).all()
        assert set(found.token_R.tolist()) <= {400, 401, 402}


def test_tokens_that_equal_the_kth_are_kept():
    """As in transformers: of 3, 1, 1, 1, 0 with k = 2 all but the last can be drawn, in a batch with a row without equals."""
    z = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    wanted = theirs(z, None, Shape(top_k=2)).exp()
    drawn = torch.stack([draw(z.clone(), u, Shape(top_k=2)).token_R for u in spread(2, 500)], 1)
    for row in range(2):
        shares = torch.bincount(drawn[row], minlength=5) / 500
        assert (shares - wanted[row]).abs().max() <= 1 / 500 + 1e-6


def test_top_k_never_looks_at_more(monkeypatch):
    """With k below the vocabulary's size nothing is sorted, and no more than k + 1 are taken."""
    monkeypatch.setattr(torch.Tensor, "sort", None)
    taken = []
    plain = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, k: taken.append(k) or plain(self, k))
    draw(logits_of(), torch.full((6,), 0.5).double(), Shape(top_k=7, top_p=0.9, min_p=0.1))
    draw(logits_of(vocabulary=2000), torch.full((6,), 0.5).double(), Shape(top_p=0.5))
    assert taken == [8, sampling.NUCLEUS]


def test_a_flat_distribution_needs_more_of_the_likeliest():
    """40,000 equal logits: 0.05 of them are 2000, above the first 256 and among the next 2048; each then has 1/2000. Beside it a row of
    which the likeliest token has half."""
    z = torch.zeros(2, 40_000)
    z[1, 7] = math.log(39_999)
    found = draw(z, torch.tensor([0.5, 0.5]).double(), Shape(top_p=0.05))
    assert found.sampled_logp_R.tolist() == pytest.approx([-math.log(2000), 0.0], abs=1e-5)
    assert found.logp_R.tolist() == pytest.approx([-math.log(40_000), -math.log(2)], abs=1e-5)


def test_log_probs_are_the_trainers():
    """A vocabulary of the real size in float32: the log-prob in float64 to a few units of rounding (of log-sum-exps of about 20)."""
    z = logits_of(4, 49152, scale=4.0)
    found = draw(z / 0.7, torch.rand(4, dtype=torch.float64), Shape())
    wanted = dense_logprobs((z / 0.7).double(), found.token_R)[0]
    torch.testing.assert_close(found.logp_R.double(), wanted, atol=4e-6, rtol=0)


def test_frequencies_match_the_probabilities():
    """20,000 draws of 8 tokens with a fixed seed: chi-square with 7 degrees of freedom is below 24.3 with probability 0.999."""
    z = torch.tensor([[0.0, 1.0, -1.0, 2.0, 0.5, -2.0, 1.5, 0.3]])
    count = 20_000
    uniform = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = z.softmax(-1)[0].double() * count
    drawn = torch.bincount(draw(z.expand(count, -1).clone(), uniform, Shape()).token_R, minlength=8)
    assert float(((drawn - expected) ** 2 / expected).sum()) < 24.3
