"""The finished model, in the layout that transformers and PEFT read, checked by reading it back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from burnish.models.load import ModelError, auto_class, kind_of, load_model, load_tokenizer
from burnish.models.padding import set_padding


def save_model(model: Any, output_dir: Path, processing_class: Any | None, state: Mapping[str, Tensor] | None = None) -> None:
    """Writes weights (or the adapter alone), configuration, tokenizer and template together. `state`: the weights, where they are sharded.

    Generation stops where training taught it to: the tokenizer's end-of-sequence token joins `generation_config`.
    Raises ModelError where the folder cannot be written to, or the disk is full.
    """
    from safetensors import SafetensorError

    eos = None if processing_class is None else processing_class.eos_token_id
    generation = model.__dict__.get("generation_config")
    if generation is not None and eos is not None:
        stops = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
        if eos not in stops:
            generation.eos_token_id = [eos, *(s for s in stops if s is not None)]
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(output_dir, **({} if state is None else {"state_dict": dict(state)}))
        if processing_class is not None:
            processing_class.save_pretrained(output_dir)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The model was not written to {output_dir} ({error}); make room there and start the same command again, which saves it anew."
        ) from error


def sample_logits(model: Any, forward: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Of 16 tokens that are always the same, without dropout. `forward`, where the model is sharded, and is called on every rank."""
    embeddings, generator = model.get_input_embeddings().weight, torch.Generator().manual_seed(0)
    ids = torch.randint(0, embeddings.shape[0], (1, 16), generator=generator).to(embeddings.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits if forward is None else forward(ids)
    model.train(was_training)
    return logits


def check_export(wanted: Tensor, output_dir: Path, dtype: torch.dtype) -> float:
    """Loads `output_dir` with plain transformers (and PEFT) and returns the largest difference to `wanted`, the trained model's
    `sample_logits`. `dtype` is that of its weights.

    Raises ModelError when the logits differ by more than rounding allows.
    """
    found = sample_logits(_read_back(output_dir, dtype, labels=wanted.shape[-1]).to(wanted.device))
    gap = float((wanted - found).abs().max())
    rounding = 1e-3 if wanted.dtype == dtype else 0.1  # sharded, the model computes in bfloat16 without autocast's exceptions
    if gap > rounding * max(1.0, float(wanted.abs().max())):
        raise ModelError(f"The model saved in {output_dir} gives other logits than the trained one, by up to {gap:.2g}; do not use it.")
    return gap


def _read_back(output_dir: Path, dtype: torch.dtype, labels: int) -> Any:
    """The base of a reward model's adapter does not know how many labels there are, nor what is padding: whoever reads it says so."""
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoTokenizer

    kind, adapter = kind_of(output_dir), output_dir / "adapter_config.json"
    if not adapter.is_file():
        return auto_class(kind).from_pretrained(output_dir, dtype=dtype)
    if kind == "causal":
        return AutoPeftModelForCausalLM.from_pretrained(output_dir, dtype=dtype)
    options: dict[str, Any] = {"dtype": dtype, "num_labels": labels}
    if (output_dir / "tokenizer_config.json").is_file():
        options["pad_token_id"] = AutoTokenizer.from_pretrained(output_dir).pad_token_id
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return PeftModel.from_pretrained(auto_class(kind).from_pretrained(base, **options), output_dir)


def merge_adapter(adapter: str | Path, output_dir: str | Path) -> Path:
    """Adds a LoRA adapter into its base model's weights and writes a plain model, checked by reading it back.

    Raises ModelError when `adapter` holds none, and when the merged model gives other logits.
    """
    from burnish.config.model import ModelConfig

    adapter, output_dir = Path(adapter), Path(output_dir)
    if not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} holds no adapter (no adapter_config.json); give the output_dir of a run with use_peft.")
    base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    kind = kind_of(adapter)
    model = load_model(ModelConfig(model_name_or_path=str(adapter)), torch.device("cpu"), kind)
    tokenizer = load_tokenizer(ModelConfig(model_name_or_path=str(adapter) if (adapter / "tokenizer_config.json").is_file() else base))
    if kind == "causal":
        _untie(model.get_base_model())
    else:
        set_padding(model, tokenizer)
    wanted = sample_logits(model)
    save_model(model.merge_and_unload(), output_dir, tokenizer)
    check_export(wanted, output_dir, wanted.dtype)
    return output_dir


def publish_weights(model: Any, folder: Path) -> None:
    """Writes the model as it is now for a sampler of another process: plain, with any adapter added into the weights of a copy.

    Raises ModelError where the folder cannot be written to, or the disk is full.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        model = copy.deepcopy(model)
        _untie(model.get_base_model())
        model = model.merge_and_unload()
    save_model(model, folder, None)


def _untie(model: Any) -> None:
    """Gives the head weights of its own where it shares the embeddings' and an adapter changes one of the two."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embeddings.weight and (isinstance(head, BaseTunerLayer) or isinstance(embeddings, BaseTunerLayer)):
        plain: Any = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
        plain.weight = nn.Parameter(plain.weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False
