"""FlashAttention over paths: what it is asked for, by hand, and what comes back, with the kernel's part played by plain PyTorch."""

import math

import pytest
import torch

from burnish.models import varlen
from burnish.models.attention import BACKENDS, Layout, Options, layout_of
from burnish.types import Node
from tests.laws.trees import make_tree

WORKED = (Node(start=0, end=2, parent=-1), Node(start=2, end=4, parent=0), Node(start=4, end=5, parent=1), Node(start=5, end=6, parent=-1))


def test_the_spans_of_paths():
    """A root of two, its child of two, a grandchild of one, and a root of one."""
    spans = varlen.spans_of(WORKED, torch.device("cpu"))
    assert spans.path_K.tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert (spans.query_ends.tolist(), spans.key_ends.tolist()) == ([0, 2, 4, 5, 6], [0, 2, 6, 11, 12])
    assert (spans.longest, spans.longest_path) == (2, 5)
    assert spans.query_ends.dtype == spans.key_ends.dtype == torch.int32


def test_plain_rows_are_their_own_paths():
    spans = varlen.spans_of((WORKED[0], Node(start=2, end=5, parent=-1)), torch.device("cpu"))
    assert spans.path_K is None
    assert spans.query_ends.tolist() == spans.key_ends.tolist() == [0, 2, 5]


def attended(query, keys, values, q_ends, k_ends, left, scale):
    """Row by row, aligned at the end, with grouped heads; what PyTorch's documentation says of the kernel."""
    outs, groups = [], query.shape[1] // keys.shape[1]
    for i in range(len(q_ends) - 1):
        q, k, v = query[q_ends[i] : q_ends[i + 1]], keys[k_ends[i] : k_ends[i + 1]], values[k_ends[i] : k_ends[i + 1]]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        ahead = torch.arange(len(k)) - (torch.arange(len(q)) + len(k) - len(q))[:, None]
        seen = (ahead <= 0) & ((ahead >= -left) | (left < 0))
        scores = (torch.einsum("qhd,khd->hqk", q, k) * scale).masked_fill(~seen, -math.inf)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    return torch.cat(outs)


def forward(q, k, v, q_ends, k_ends, longest, longest_path, dropout, causal, debug, *, scale, window_size_left, window_size_right):
    assert (dropout, debug, window_size_right, causal) == (0.0, False, 0, window_size_left < 0)
    assert (longest, longest_path) == (int(q_ends.diff().max()), int(k_ends.diff().max()))
    nothing = torch.zeros(0)
    return attended(q, k, v, q_ends.tolist(), k_ends.tolist(), window_size_left, scale), nothing, nothing, nothing, nothing


def backward(grad, q, k, v, out, lse, q_ends, k_ends, longest, longest_path, dropout, causal, state, unused, *, scale, **window):
    with torch.enable_grad():
        leaves = [one.detach().requires_grad_() for one in (q, k, v)]
        again = attended(*leaves, q_ends.tolist(), k_ends.tolist(), window["window_size_left"], scale)
    assert torch.equal(again, out)
    return torch.autograd.grad(again, leaves, grad)


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("shape", [None, ((3, -1), (5, -1), (1, -1))], ids=["tree", "rows"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_values_and_gradients(monkeypatch, window, shape, kv_heads):
    monkeypatch.setattr(varlen, "FORWARD", forward)
    monkeypatch.setattr(varlen, "BACKWARD", backward)
    tree, generator = make_tree(97) if shape is None else make_tree(97, shape), torch.Generator().manual_seed(0)
    layout = Layout(nodes=tree.nodes, position_T=tree.position_T, backend=None, window=window)
    sizes = [(1, heads, tree.T, 8) for heads in (4, kv_heads, kv_heads)]
    leaves = [torch.randn(size, generator=generator).requires_grad_() for size in sizes]
    weight = torch.randn(sizes[0], generator=generator)
    found = {}
    for backend in ("dense", "varlen"):
        out = BACKENDS[backend](*leaves, layout, Options(scaling=0.3))
        found[backend] = [out, *torch.autograd.grad((out * weight).sum(), leaves)]
    for one, other in zip(*found.values(), strict=True):
        assert (one - other).abs().max() <= 2e-6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on a GPU")
@pytest.mark.parametrize("window", [None, 37])
@pytest.mark.parametrize(("width", "heads", "kv_heads"), [(64, 9, 3), (128, 28, 4), (8, 4, 2), (256, 4, 4)])
def test_the_kernel_itself(width, heads, kv_heads, window):
    """As near to float64 as a call per node is."""
    tree = make_tree(97, ((120, -1), (80, 0), (160, 0), (40, 1), (200, -1))).to(torch.device("cuda"))
    layout = layout_of(tree.nodes, tree.position_T)
    layout = layout if window is None else layout.windowed(window)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, n, tree.T, width, device="cuda", dtype=torch.bfloat16) for n in (heads, kv_heads, kv_heads))
    weight, gaps = torch.randn_like(query), {}
    for backend in ("dense", "sdpa", "varlen"):
        leaves = [(one.double() if backend == "dense" else one).detach().requires_grad_() for one in (query, key, value)]
        out = BACKENDS[backend](*leaves, layout, Options(scaling=width**-0.5))
        gaps[backend] = [one.double() for one in (out, *torch.autograd.grad((out * weight).sum(), leaves))]
    for exact, plain, ours in zip(*gaps.values(), strict=True):
        assert (ours - exact).norm() <= 1.5 * (plain - exact).norm() <= 0.01 * exact.norm()
