"""float32 products by oneDNN: as exact as the others, only where that is known, and undone afterwards."""

import pytest
import torch

from burnish.models import products
from burnish.models.products import float32_products, onednn_is_exact

AVX512 = {"avx512_bw": True, "avx512_vl": True, "amx_tile": False, "avx10_2": False}


@pytest.mark.parametrize("rows", [1, 3, 17, 128, 513])
def test_products_are_exact_to_float32(rows):
    """Forward and both products of the backward, beside float64; rounded to bfloat16 the errors would be about 2e-3."""
    draw = torch.Generator().manual_seed(rows)
    inputs, weight, up = (torch.randn(*shape, generator=draw) for shape in ((rows, 96), (160, 96), (rows, 160)))
    with float32_products():
        found = (inputs @ weight.T, up @ weight, up.T @ inputs)
    for one, exact in zip(
        found, (inputs.double() @ weight.double().T, up.double() @ weight.double(), up.double().T @ inputs.double()), strict=True
    ):
        assert ((one - exact).norm() / exact.norm()).item() < 1e-6


@pytest.mark.parametrize(
    ("capabilities", "exact"),
    [
        (AVX512, True),
        (AVX512 | {"amx_tile": True}, False),
        (AVX512 | {"avx10_2": True}, False),
        ({"avx2": True}, False),
        ({"bf16": True}, False),
    ],
)
def test_the_switch_is_set_only_where_nothing_is_rounded(capabilities, exact, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert onednn_is_exact() == exact
    before = torch.backends.mkldnn.matmul.fp32_precision
    with float32_products(), float32_products():
        assert torch.backends.mkldnn.matmul.fp32_precision == ("bf16" if exact else before)
    assert torch.backends.mkldnn.matmul.fp32_precision == before == "none"


def test_what_a_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_exact", lambda: True)
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    try:
        with float32_products():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
