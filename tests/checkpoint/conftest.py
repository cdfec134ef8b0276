import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = dict(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
    attention_dropout=0.1,
    pad_token_id=None,
    bos_token_id=None,
    eos_token_id=None,
)


@pytest.fixture
def make_model():
    """Tiny Llamas with tied embeddings; another seed, other weights."""

    def make(seed=0, **options):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(LlamaConfig(**{**copy.deepcopy(CONFIG), **options}))

    return make
