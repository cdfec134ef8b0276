"""The layout of a tree as attention sees it, by hand."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from burnish.models.attention import BACKENDS, Layout, Options, _best, _block_mask, _current, _node_mask, tree_layout
from burnish.types import Node
from tests.laws.trees import FOREST, make_tree, visible

WORKED = Layout(
    nodes=(Node(start=0, end=2, parent=-1), Node(start=2, end=4, parent=0), Node(start=4, end=5, parent=0)),
    position_T=torch.tensor([0, 1, 2, 3, 2]),
    backend="dense",
)
"""The worked example of TokenTree: [5, 6] with branches [7, 8] and [9]."""


def test_the_worked_example():
    """Token 9 sees 5, 6 and itself; it does not see 7 and 8."""
    assert WORKED.dense_mask().int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert [WORKED.ancestors(i) for i in range(3)] == [[], [0], [0]]


def test_a_window_counts_along_the_branch():
    """Two keys back at most, itself included: 9 sees 6 and itself, though 8 and 7 stand between them in the row."""
    windowed = Layout(nodes=WORKED.nodes, position_T=WORKED.position_T, backend="dense", window=2)
    assert windowed.dense_mask().int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1],
    ]


@pytest.mark.parametrize("window", [None, 1, 2, 5, 100])
def test_the_masks_of_nodes_are_parts_of_the_whole_one(window):
    tree = make_tree(97)
    layout = Layout(nodes=tree.nodes, position_T=tree.position_T, backend="sdpa", window=window)
    whole = layout.dense_mask()
    for i, node in enumerate(tree.nodes):
        spans = [slice(tree.nodes[a].start, tree.nodes[a].end) for a in (*layout.ancestors(i), i)]
        own = slice(node.start, node.end)
        part = _node_mask(layout, spans, own)
        assert torch.equal(part, torch.cat([whole[own, s] for s in spans], 1))
        assert whole[own].sum() == part.sum(), "nothing else is seen"


def test_the_mask_is_the_one_that_walking_the_paths_gives():
    tree = make_tree(97, trained=1.0)
    mask = Layout(nodes=tree.nodes, position_T=tree.position_T, backend="dense").dense_mask()
    assert torch.equal(mask[tree.source_N], visible(tree))
    assert tree.T - sum(parent < 0 for _, parent in FOREST) == tree.N


@pytest.mark.parametrize("options", [{}, {"softcap": 1.5}, {"sinks": True}, {"softcap": 1.5, "sinks": True}], ids=str)
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_backends_are_equal(options, window, kv_heads):
    """Grouped heads, soft caps, sinks and windows, in every combination, with gradients (flex: without)."""
    tree, generator = make_tree(97), torch.Generator().manual_seed(0)
    shapes = [(1, h, tree.T, 8) for h in (4, kv_heads, kv_heads)]
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    sinks = torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_() if options.get("sinks") else None
    asked = Options(scaling=0.3, dropout=0.0, softcap=options.get("softcap"), sinks=sinks)
    weight = torch.randn(shapes[0], generator=generator, dtype=torch.float64)
    outs, grads = {}, {}
    for backend in ("sdpa", "dense", "flex"):
        layout = Layout(nodes=tree.nodes, position_T=tree.position_T, backend=backend, window=window)
        given = [leaf.detach() for leaf in leaves] if backend == "flex" else leaves
        with torch.set_grad_enabled(backend != "flex"):
            outs[backend] = BACKENDS[backend](*given, layout, asked)
        if backend != "flex":
            grads[backend] = torch.autograd.grad((outs[backend] * weight).sum(), [*leaves, *([sinks] if sinks is not None else [])])
    assert (outs["sdpa"] - outs["dense"]).abs().max() <= 1e-12
    assert (outs["flex"] - outs["dense"]).abs().max() <= 1e-12
    assert all((a - b).abs().max() <= 1e-12 for a, b in zip(grads["sdpa"], grads["dense"], strict=True))


class OnGPU:
    """As much of a tensor on a GPU as the choice looks at."""

    is_cuda, device = True, torch.device("cuda")

    def __init__(self, dtype, width=64):
        self.dtype, self.shape = dtype, (1, 4, 10, width)


@pytest.mark.parametrize(
    ("dtype", "width", "options", "wanted"),
    [
        (torch.bfloat16, 64, {}, "varlen"),
        (torch.bfloat16, 320, {}, "flex"),
        (torch.bfloat16, 64, {"softcap": 30.0}, "flex"),
        (torch.bfloat16, 64, {"sinks": torch.zeros(4)}, "flex"),
        (torch.bfloat16, 64, {"dropout": 0.1}, "sdpa"),
        (torch.float32, 64, {}, "sdpa"),
        (torch.float64, 8, {"softcap": 30.0}, "sdpa"),
    ],
    ids=str,
)
def test_the_backend_goes_by_what_is_asked(monkeypatch, dtype, width, options, wanted):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    one = OnGPU(dtype, width)
    assert _best(one, one, Options(scaling=1.0, **options)) == wanted
    assert _best(torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype), Options(scaling=1.0, **options)) == "sdpa"


def test_a_gpu_older_than_the_kernel_has_flex(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert _best(OnGPU(torch.float16), OnGPU(torch.float16), Options(scaling=1.0)) == "flex"


def test_a_backend_that_is_named_is_taken():
    with tree_layout(make_tree(97), "dense"):
        assert _current.get().backend == "dense"
    assert _current.get() is None


@pytest.mark.parametrize("window", [None, 37, 300])
@pytest.mark.parametrize("factor", [1, 3, 17, 30])
def test_blocks(factor, window):
    """None that is seen is missing, none called whole is not, and without a window they are PyTorch's own from the mask of `[T, T]`."""
    tree = make_tree(97, tuple((factor * length, parent) for length, parent in FOREST))
    layout, T = Layout(nodes=tree.nodes, position_T=tree.position_T, backend="flex", window=window), tree.T
    sees = layout.sees()
    wanted = create_block_mask(lambda b, h, q, k: sees(q, k), None, None, T, T, device="cpu")
    found = _block_mask(layout)
    some, all_of_them = ([mask.to_dense()[0, 0].bool(), whole_blocks(mask)] for mask in (found, wanted))
    assert not (all_of_them[0] & ~some[0]).any()
    assert not (some[1] & ~all_of_them[1]).any()
    if window is None:
        assert torch.equal(some[0], all_of_them[0])
        assert torch.equal(some[1], all_of_them[1])
    query = torch.randn(1, 2, T, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outs = [BACKENDS[backend](query, query, query, layout, Options(scaling=0.3)) for backend in ("flex", "dense")]
    assert (outs[0] - outs[1]).abs().max() <= 1e-12


def whole_blocks(mask):
    found = torch.zeros(mask.to_dense().shape[2:], dtype=torch.bool)
    for row, (count, columns) in enumerate(zip(mask.full_kv_num_blocks[0, 0], mask.full_kv_indices[0, 0], strict=True)):
        found[row, columns[:count].long()] = True
    return found


def test_masks_are_made_once_for_all_layers():
    made = []
    layout = Layout(nodes=WORKED.nodes, position_T=WORKED.position_T, backend="dense")
    for _ in range(3):
        layout.keep("dense", lambda: made.append(1))
    assert made == [1]
