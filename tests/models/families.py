"""Tiny random models of each family, made from their configurations alone."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

VOCABULARY = 97
_SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
_GROUPED = {**_SMALL, "num_key_value_heads": 2}
_MAMBA = {"vocab_size": VOCABULARY, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "pad_token_id": None}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 1, "eos_token_id": 2}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}

FAMILIES: dict[str, tuple[str, dict, str]] = {
    # name: (model type, configuration, how it is expected to run)
    "llama": ("llama", _GROUPED, "tree"),
    "llama-tied": ("llama", {**_GROUPED, "tie_word_embeddings": True}, "tree"),
    "qwen2": ("qwen2", _GROUPED, "tree"),
    "qwen3": ("qwen3", _GROUPED, "tree"),
    "qwen3-moe": ("qwen3_moe", {**_GROUPED, **_EXPERTS}, "tree"),
    "mistral-sliding": ("mistral", {**_GROUPED, "sliding_window": 5}, "tree"),
    "gemma2": ("gemma2", {**_GROUPED, "sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.0}, "tree"),
    "gemma3": ("gemma3_text", {**_GROUPED, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}, "tree"),
    "phi3": ("phi3", {**_GROUPED, "pad_token_id": 0}, "tree"),
    "olmo": ("olmo", _GROUPED, "tree"),
    "olmo2": ("olmo2", _GROUPED, "tree"),
    "gpt2": ("gpt2", _GPT2, "tree"),
    "gpt-neox": ("gpt_neox", _SMALL, "tree"),
    "cohere": ("cohere", {**_GROUPED, "logit_scale": 0.25}, "tree"),
    "granite": ("granite", {**_GROUPED, "logits_scaling": 4.0, "attention_multiplier": 0.3, "embedding_multiplier": 2.0,
                            "residual_multiplier": 0.5}, "tree"),
    "gpt-oss": ("gpt_oss", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5,
                            "layer_types": ["sliding_attention", "full_attention"]}, "tree"),
    "mamba": ("mamba", _MAMBA, "branches"),
    "bloom-alibi": ("bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "branches"),
}  # fmt: skip


def tiny_model(name: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: object) -> torch.nn.Module:
    """A random model of the family with weights large enough that a leak of attention shows."""
    return _made(AutoModelForCausalLM, name, dtype, seed, changes)


def tiny_scorer(
    name: str, kind: str = "reward", *, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: object
) -> torch.nn.Module:
    """Likewise a reward model, or a process reward model, which then has no dropout before its head."""
    auto = {"reward": AutoModelForSequenceClassification, "process_reward": AutoModelForTokenClassification}[kind]
    labels = {"reward": 1, "process_reward": 2}[kind]
    return _made(auto, name, dtype, seed, {"num_labels": labels, "classifier_dropout": 0.0, **changes})


def _made(auto: type, name: str, dtype: torch.dtype, seed: int, changes: dict) -> torch.nn.Module:
    kind, options, _ = FAMILIES[name]
    torch.manual_seed(seed)
    model = auto.from_config(AutoConfig.for_model(kind, **{**options, **changes})).to(dtype)
    if "num_experts_per_tok" in options:
        model.set_experts_implementation("eager")  # the grouped matmul has no float64
    with torch.no_grad():
        for label, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
            elif "sinks" in label or "bias" in label:
                parameter.normal_(0, 0.5)
    return model.eval()
