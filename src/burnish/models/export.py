"""The finished model, in the layout that transformers and PEFT read, checked by reading it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from burnish.models.load import ModelError, load_model, load_tokenizer


def save_model(model: Any, output_dir: Path, processing_class: Any | None) -> None:
    """Writes weights (or the adapter alone), configuration, tokenizer and template together.

    Generation stops where training taught it to: the tokenizer's end-of-sequence token joins `generation_config`.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    eos = None if processing_class is None else processing_class.eos_token_id
    generation = model.__dict__.get("generation_config")
    if generation is not None and eos is not None:
        stops = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
        if eos not in stops:
            generation.eos_token_id = [eos, *(s for s in stops if s is not None)]
    model.save_pretrained(output_dir)
    if processing_class is not None:
        processing_class.save_pretrained(output_dir)


def check_export(model: Any, output_dir: Path) -> float:
    """Loads `output_dir` with plain transformers (and PEFT) and returns the largest difference in logits, which must be 0 up to rounding.

    Raises ModelError when the logits differ by more than float32 rounding allows.
    """
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    auto = AutoPeftModelForCausalLM if (output_dir / "adapter_config.json").is_file() else AutoModelForCausalLM
    weight = next(model.parameters())
    again = auto.from_pretrained(output_dir, dtype=weight.dtype).to(weight.device).eval()
    vocabulary, generator = model.get_input_embeddings().weight.shape[0], torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, 16), generator=generator).to(weight.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        ours, theirs = model(ids, use_cache=False).logits, again(ids, use_cache=False).logits
    model.train(was_training)
    gap = float((ours - theirs).abs().max())
    if gap > 1e-3 * max(1.0, float(ours.abs().max())):
        raise ModelError(f"The model saved in {output_dir} gives other logits than the trained one, by up to {gap:.2g}; do not use it.")
    return gap


def merge_adapter(adapter: str | Path, output_dir: str | Path) -> Path:
    """Adds a LoRA adapter into its base model's weights and writes a plain model. Raises ModelError when `adapter` holds none."""
    from burnish.config.model import ModelConfig

    adapter, output_dir = Path(adapter), Path(output_dir)
    if not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} holds no adapter (no adapter_config.json); give the output_dir of a run with use_peft.")
    base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    merged = load_model(ModelConfig(model_name_or_path=str(adapter)), torch.device("cpu")).merge_and_unload()
    has_tokenizer = (adapter / "tokenizer_config.json").is_file()
    save_model(merged, output_dir, load_tokenizer(ModelConfig(model_name_or_path=str(adapter if has_tokenizer else base))))
    return output_dir
