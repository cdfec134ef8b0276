"""Fixtures of the models."""

import pytest
import torch

from tests.laws.exact import float64_throughout
from tests.laws.methods import tokenizer
from tests.models.families import tiny_model


@pytest.fixture
def float64():
    """Models compute in float64 throughout."""
    with float64_throughout():
        yield


@pytest.fixture
def folder(tmp_path):
    tiny_model("llama", dtype=torch.float32).save_pretrained(tmp_path / "causal")
    tokenizer().save_pretrained(tmp_path / "causal")
    return tmp_path / "causal"
