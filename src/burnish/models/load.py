"""From a name to a model and a tokenizer, with every dtype explicit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from burnish.config.model import ModelConfig
from burnish.config.train import ModelKind

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
TOKENIZER_FILES = ("tokenizer", "vocab", "spiece", "sentencepiece", "tekken")
"""What the names of a tokenizer's files begin with."""

Kind = ModelKind
"""Log-probs of tokens; one score for a row; two logits at each token, for a wrong step and for a right one."""
TASKS: dict[Kind, str] = {"causal": "CAUSAL_LM", "reward": "SEQ_CLS", "process_reward": "TOKEN_CLS"}
"""PEFT's names, as an adapter's configuration has them."""
LABELS: dict[Kind, int] = {"reward": 1, "process_reward": 2}
SCORE_HEADS = ("score", "classifier")
"""What transformers' classifiers call their heads."""


class ModelError(ValueError):
    """The model or tokenizer cannot be used as asked. One sentence."""


def choose_compute_dtype(wanted: str, device: torch.device, weights: torch.dtype = torch.float32) -> tuple[torch.dtype, str]:
    """The dtype of matrix products, and why. "auto" takes the dtype of the weights, but bfloat16 for float32 where the hardware
    multiplies it. Raises ModelError for float16, and for float32 where the weights hold less."""
    if wanted == "float16":
        raise ModelError("compute_dtype='float16' needs loss scaling, which Burnish does not do; use 'bfloat16' or 'float32'.")
    if wanted == "auto" and weights in {torch.bfloat16, torch.float64}:
        return weights, "as the weights"
    found, why = (DTYPES[wanted], "as asked") if wanted != "auto" else _of_hardware(device)
    if found is torch.float32 and weights.itemsize < found.itemsize:
        held = str(weights).removeprefix("torch.")
        raise ModelError(f"Weights in {held} cannot be computed with in float32 ({why}); load them with dtype='float32'.")
    return found, why


def _of_hardware(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return (torch.bfloat16, "this GPU's tensor cores") if fast else (torch.float32, "this GPU has no bfloat16")
    if torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"):
        return torch.bfloat16, "this CPU multiplies bfloat16"
    return torch.float32, "this CPU has no bfloat16 units"


def _not_loaded(what: str, name: str, error: Exception) -> ModelError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if not Path(name).exists():
        return ModelError(f"{what} {name!r} could not be loaded: it is no local folder, and the hub did not give it ({first}).")
    return ModelError(f"{what} {name!r} could not be loaded ({first}); give a folder with a transformers model, or a hub id.")


def load_tokenizer(config: ModelConfig, *, chat_template_path: str | None = None, eos_token: str | None = None) -> Any:
    """The model's tokenizer, with the template of `chat_template_path` (a Jinja file, or a model whose template is taken) where given."""
    from transformers import AutoTokenizer

    options = {"revision": config.model_revision, "trust_remote_code": config.trust_remote_code}
    name = str(config.model_name_or_path)
    if Path(name).is_dir() and not any(file.name.startswith(TOKENIZER_FILES) for file in Path(name).iterdir()):
        raise _not_loaded("The tokenizer of", name, FileNotFoundError("the folder holds no tokenizer.json or the like"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise _not_loaded("The tokenizer of", name, error) from error
    return adapt_tokenizer(tokenizer, chat_template_path=chat_template_path, eos_token=eos_token)


def stop_token_ids(config: ModelConfig) -> tuple[int, ...]:
    """Tokens at which the model stops generating, as its `generation_config.json` says; none where it has none. Loads no weights."""
    from transformers import GenerationConfig

    if not config.model_name_or_path:
        return ()
    try:
        stops = GenerationConfig.from_pretrained(config.model_name_or_path, revision=config.model_revision).eos_token_id
    except OSError:
        return ()
    return (stops,) if isinstance(stops, int) else tuple(stops or ())


def adapt_tokenizer(tokenizer: Any, *, chat_template_path: str | None = None, eos_token: str | None = None) -> Any:
    """Sets end-of-sequence token and chat template, in place. Raises ModelError for a token that the vocabulary lacks."""
    if eos_token is not None:
        if eos_token not in tokenizer.get_vocab():
            raise ModelError(f"eos_token {eos_token!r} is not in the tokenizer's vocabulary; choose one of its tokens.")
        tokenizer.eos_token = eos_token
    if chat_template_path is not None:
        path = Path(chat_template_path)
        if path.is_file():
            tokenizer.chat_template = path.read_text(encoding="utf-8")
        else:
            tokenizer.chat_template = load_tokenizer(ModelConfig(model_name_or_path=chat_template_path)).chat_template
    return tokenizer


def auto_class(kind: Kind) -> Any:
    """The class that loads a model of this kind, with or without Burnish."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

    return {
        "causal": AutoModelForCausalLM,
        "reward": AutoModelForSequenceClassification,
        "process_reward": AutoModelForTokenClassification,
    }[kind]


def kind_of(folder: Path) -> Kind:
    """Of what `save_pretrained` wrote: a model, or an adapter."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        task = json.loads(adapter.read_text(encoding="utf-8"))["task_type"]
        return next((kind for kind, name in TASKS.items() if name == task), "causal")
    (architecture,) = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    return next((kind for kind in LABELS if architecture.endswith(_suffix(kind))), "causal")


def _suffix(kind: Kind) -> str:
    """What the names of its classes end with."""
    return auto_class(kind).__name__.removeprefix("AutoModel")


def check_kind(model: Any, kind: Kind) -> None:
    """Of a model that a user has loaded. Raises ModelError where it is of another kind, or has another number of labels."""
    if kind == "causal":
        return
    from peft import PeftModel

    name, labels = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__, model.config.num_labels
    if not name.endswith(_suffix(kind)) or labels != LABELS[kind]:
        raise ModelError(
            f"{auto_class(kind).__name__} with num_labels={LABELS[kind]} is what trains here, and the model is a {name} with {labels}; "
            "load it so, or give its name."
        )


def load_model(config: ModelConfig, device: torch.device, kind: Kind = "causal", say: Callable[[str], None] = lambda _: None) -> Any:
    """The model in its master dtype (float32 unless asked otherwise), on `device`.

    A folder that holds an adapter gives its base model with the adapter on it, trainable. A reward model of either kind can be
    loaded from any causal model: its head is then new, with small random weights, and `say` hears of it. Raises ModelError.
    """
    name = str(config.model_name_or_path)
    adapter = Path(name) / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        return _with_adapter(load_model(replace(config, model_name_or_path=base), device, kind), name, kind)
    model, new_head = _load_plain(config, name, kind)
    if not (config.load_in_4bit or config.load_in_8bit):
        model = model.to(device)
    if config.adapter_name_or_path:
        return _with_adapter(model, config.adapter_name_or_path, kind)  # with a head of its own
    if new_head:
        say(f"The score head of {name} is new: small random weights, drawn by the run's seed.")
    return model


def _load_plain(config: ModelConfig, name: str, kind: Kind) -> tuple[Any, bool]:
    """The model without an adapter, and whether its score head is new."""
    from safetensors import SafetensorError

    options: dict[str, Any] = dict(config.model_init_kwargs or {})
    if kind != "causal":
        options |= {"num_labels": LABELS[kind], "ignore_mismatched_sizes": True}  # to refuse them in words of our own
    if config.attn_implementation not in (None, "tree", "branches"):
        options["attn_implementation"] = config.attn_implementation
    try:
        loaded: Any = auto_class(kind).from_pretrained(
            name,
            revision=config.model_revision,
            trust_remote_code=config.trust_remote_code,
            dtype=DTYPES["float32" if config.dtype == "auto" else config.dtype],
            output_loading_info=True,
            **_quantization(config),
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _no_such_kind(name, kind, error) or _not_loaded("The model", name, error) from error
    model, found = loaded
    new_head = kind != "causal" and _head_is_new(name, kind, model, found)
    missing = sorted(set(found["missing_keys"]) - (_head_keys(found["missing_keys"]) if new_head else set()))
    if missing:
        raise ModelError(f"{name} has no weights for {', '.join(missing[:5])}, {len(missing)} in all, which would start at random.")
    return model, new_head


def _no_such_kind(name: str, kind: Kind, error: Exception) -> ModelError | None:
    if kind == "causal" or "Unrecognized configuration class" not in str(error):
        return None
    return ModelError(f"transformers has no {auto_class(kind).__name__} of the family of {name}; choose a model of another family.")


def _head_keys(keys: Iterable[str]) -> set[str]:
    return {key for key in keys if key.split(".")[0] in SCORE_HEADS}


def _head_is_new(name: str, kind: Kind, model: Any, found: Mapping[str, Any]) -> bool:
    """Whether the files have no score head at all. Raises ModelError where they have one of another kind."""
    for key, saved, wanted in found["mismatched_keys"]:
        if _head_keys([key]):
            raise ModelError(
                f"{name} is a classifier with {saved[0]} labels, where this one has {wanted[0]}; give the model it was made from."
            )
        raise ModelError(
            f"{name} has {key} as {list(saved)} where its configuration says {list(wanted)}; its files do not belong together."
        )
    head = _head_keys(model.state_dict())
    absent = head & set(found["missing_keys"])
    if _head_keys(found["unexpected_keys"]) or (absent and absent != head):
        raise ModelError(f"{name} is a classifier of another kind than {auto_class(kind).__name__}; give the model it was made from.")
    return bool(absent)


def load_skeleton(config: ModelConfig, kind: Kind = "causal") -> Any:
    """The model without its weights (on the meta device), to count what it takes. Raises ModelError."""
    from transformers import AutoConfig

    name = str(config.model_name_or_path)
    adapter = Path(name) / "adapter_config.json"
    if adapter.is_file():
        name = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    try:
        found = AutoConfig.from_pretrained(name, revision=config.model_revision, trust_remote_code=config.trust_remote_code)
        found.num_labels = LABELS.get(kind, found.num_labels)
        with torch.device("meta"):
            return auto_class(kind).from_config(found, dtype=DTYPES["float32" if config.dtype == "auto" else config.dtype])
    except (OSError, ValueError) as error:
        raise _no_such_kind(name, kind, error) or _not_loaded("The model", name, error) from error


def _with_adapter(model: Any, adapter: str, kind: Kind) -> Any:
    from peft import PeftConfig, PeftModel

    try:
        task = PeftConfig.from_pretrained(adapter).task_type or TASKS["causal"]
    except (OSError, ValueError) as error:
        raise _not_loaded("The adapter", adapter, error) from error
    if task != TASKS[kind]:
        raise ModelError(f"The adapter {adapter!r} is one for {task}, and this model is for {TASKS[kind]}; merge it into its base first.")
    try:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    except (OSError, ValueError) as error:
        raise _not_loaded("The adapter", adapter, error) from error


def _quantization(config: ModelConfig) -> dict[str, Any]:
    if not (config.load_in_4bit or config.load_in_8bit):
        return {}
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise ModelError("load_in_4bit and load_in_8bit need bitsandbytes; install it with pip install 'burnish[quantization]'.")
    if not config.use_peft and not config.adapter_name_or_path:
        raise ModelError("A quantized model is frozen and trains only through an adapter; add use_peft=True.")
    from transformers import BitsAndBytesConfig

    compute, _ = choose_compute_dtype(config.compute_dtype, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=config.load_in_4bit,
            load_in_8bit=config.load_in_8bit,
            bnb_4bit_quant_type=config.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=config.use_bnb_nested_quant,
            bnb_4bit_compute_dtype=compute,
        )
    }


def disable_dropout(model: torch.nn.Module) -> None:
    """Sets every dropout of the model and its adapters to 0, in place, attention's too."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module.__dict__.get("attention_dropout"), float):
            module.__dict__["attention_dropout"] = 0.0
