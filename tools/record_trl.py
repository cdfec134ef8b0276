"""Writes what TRL has, by name: options with their defaults, trainers' arguments and methods, and the names of its doors.

    .venv-trl/bin/python tools/record_trl.py tools/data/trl-1.16.json

It runs with TRL's own environment (`make .venv-trl/ready`), once for each version of TRL that docs/migrate-from-trl.md speaks of.
Names and defaults are facts of an interface; nothing else of it is kept.
"""

import dataclasses
import importlib
import inspect
import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any

DOORS = ("trl", "trl.rewards")
METHODS = ("SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO")
EXPERIMENTAL = ("CPO", "ORPO")
OTHER_CONFIGS = {"ModelConfig": "trl", "ScriptArguments": "trl", "DatasetMixtureConfig": "trl", "DatasetConfig": "trl.scripts.utils"}
TOLD = {
    "DPOConfig": {
        "loss_type": "sigmoid sigmoid_norm hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down "
        "discopop sft",
        "f_divergence_type": "reverse_kl forward_kl js_divergence alpha_divergence",
    },
    "GRPOConfig": {
        "loss_type": "grpo dr_grpo dapo bnpo cispo sapo luspo vespo",
        "importance_sampling_level": "token sequence",
        "multi_objective_aggregation": "sum_then_normalize normalize_then_sum",
        "scale_rewards": "group batch none",
        "vllm_importance_sampling_mode": "token_truncate token_mask sequence_truncate sequence_mask",
        "vllm_mode": "server colocate",
        "vllm_model_impl": "vllm transformers",
    },
    "CPOConfig": {"loss_type": "sigmoid hinge ipo simpo alphapo"},
}
"""Values that only the documentation of an option names."""
REQUIRED = "<required>"


def found(module: str, name: str) -> Any:
    return vars(importlib.import_module(module)).get(name) or importlib.import_module(module).__getattr__(name)


def plain(value: Any) -> Any:
    """A default as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str | dict) else repr(value)


def fields_of(cls: type) -> dict[str, Any]:
    """Option → default, as it is before the class fills in what depends on the machine; those of bases first."""
    found = {}
    for field in dataclasses.fields(cls):
        if field.init:
            made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            found[field.name] = REQUIRED if made is dataclasses.MISSING else plain(made)
    return found


def enumerated() -> dict[str, list[str]]:
    """Option of transformers' → its values."""
    from transformers import TrainingArguments
    from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    kinds = {
        "optim": OptimizerNames, "lr_scheduler_type": SchedulerType, "save_strategy": SaveStrategy, "eval_strategy": IntervalStrategy,
        "logging_strategy": IntervalStrategy, "hub_strategy": HubStrategy,
    }  # fmt: skip
    return {name: [one.value for one in kind] for name, kind in kinds.items()} | chosen(TrainingArguments)


def chosen(cls: type) -> dict[str, list[str]]:
    """Option → its values, where the class says them."""
    return {
        field.name: [plain(one) for one in field.metadata["choices"]] for field in dataclasses.fields(cls) if "choices" in field.metadata
    }


def values_of(cls: type) -> dict[str, list[str]]:
    """Option → its values, those of transformers' aside."""
    told = {name: words.split() for name, words in TOLD.get(cls.__name__, {}).items()}
    return {name: values for name, values in (chosen(cls) | told).items() if name not in enumerated()}


def arguments(cls: type) -> list[str]:
    return [name for name, one in inspect.signature(cls.__init__).parameters.items() if name != "self" and one.kind is not one.VAR_KEYWORD]


def methods(cls: type) -> list[str]:
    return sorted(name for name in dir(cls) if not name.startswith("_") and callable(inspect.getattr_static(cls, name, None)))


def names(door: str) -> list[str]:
    """What a module exports, its own modules aside."""
    public = [name for name in dir(importlib.import_module(door)) if not name.startswith("_")]
    return [name for name in public if not inspect.ismodule(found(door, name))]


def main(path: Path) -> None:
    import transformers
    import trl

    places = {**dict.fromkeys(METHODS, "trl"), **{name: f"trl.experimental.{name.lower()}" for name in EXPERIMENTAL}}
    configs = {f"{name}Config": place for name, place in places.items()} | OTHER_CONFIGS
    trainers = {f"{name}Trainer": found(place, f"{name}Trainer") for name, place in places.items()}
    said = {
        "trl": trl.__version__,
        "transformers": transformers.__version__,
        "TrainingArguments": list(fields_of(transformers.TrainingArguments)),
        "configs": {name: fields_of(found(place, name)) for name, place in configs.items()},
        "values": {"TrainingArguments": enumerated(), **{name: values_of(found(place, name)) for name, place in configs.items()}},
        "arguments": {name: arguments(cls) for name, cls in trainers.items()},
        "methods": sorted({method for cls in trainers.values() for method in methods(cls)}),
        "doors": {door: sorted(names(door)) for door in DOORS},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: record_trl.py OUTPUT.json, run with TRL's environment (make .venv-trl/ready)")
    main(Path(sys.argv[1]))
