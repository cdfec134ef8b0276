"""A model's tensors out through `save_pretrained`, and back in place to the bit.

`from_pretrained` alone is not exact: it leaves out buffers that are not persistent and parameters that were unfrozen
beside an adapter, and casts everything to one dtype. So every tensor that training may change is looked up in the files
that `save_pretrained` wrote; what is not there with the same bits goes into a file of its own. (That file is tiny,
except for mixture-of-experts models, whose experts transformers splits on the way out.)
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from burnish.checkpoint.files import CheckpointError
from burnish.distributed.launch import Launch
from burnish.distributed.shards import fill, local, whole

OTHER = "other_tensors.safetensors"
Place = tuple[Any, ...]
"""Where a tensor lies in memory, and how it is seen."""
Key = tuple[str, str]
"""(a file's folder below the checkpoint, or OTHER; the tensor's name in the file)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a model was at one moment, in whole tensors."""

    state: dict[str, Tensor]
    """As `save_pretrained(state_dict=…)` takes it; tied weights are the same tensor twice."""
    changing: dict[str, Tensor]
    """All that training may change, each once."""
    keys: dict[str, list[Key]]
    """Name in `changing` → the keys under which `save_pretrained` may write it."""


def gather_weights(model: nn.Module, here: Launch, *, copy: bool) -> Weights:
    """Call on every rank; rank 0's result is what counts, and the others' is empty. `copy`: it stays as it is while training goes on."""
    keys, held = _keys_in_files(model), dict[Place, Tensor]()
    changing = _changing_tensors(model, keys)
    for tensor in (*changing.values(), *_embeddings_of_base(model)):
        value = whole(tensor.detach())
        if here.main:
            held[_place(tensor)] = value.to("cpu", copy=copy)  # rank 0's GPU need not hold all of a model that is sharded
    if not here.main:
        return Weights(state={}, changing={}, keys={})
    state = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}
    return Weights(
        state={name: held[place] for name, tensor in state.items() if (place := _place(tensor)) in held},
        changing={name: held[_place(tensor)] for name, tensor in changing.items()},
        keys={name: keys.get(_place(tensor), []) for name, tensor in changing.items()},
    )


def save_model(model: nn.Module, weights: Weights, folder: Path) -> None:
    """`model.save_pretrained(folder)` with `weights`, and beside it what that left out."""
    from safetensors.torch import save_file

    with _no_progress_bar():
        model.save_pretrained(folder, state_dict=dict(weights.state))  # type: ignore[operator]
    _write_dtype(weights, folder / "config.json")
    saved = _SavedTensors(folder)
    other = {
        name: tensor.contiguous()
        for name, tensor in weights.changing.items()
        if not any(_same_bits(tensor, saved.get(key)) for key in weights.keys[name])
    }
    if other:
        save_file(other, folder / OTHER)


def _write_dtype(weights: Weights, path: Path) -> None:
    """transformers writes the dtype that the live model has, which in the background may be the one that shards are computed in."""
    if path.exists():
        dtype = next(tensor.dtype for tensor in weights.state.values() if tensor.is_floating_point())
        config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": str(dtype).removeprefix("torch.")}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_model(model: nn.Module, folder: Path) -> None:
    """Copy what `save_model` wrote into `model`, in place, each rank its part; tied weights stay tied.

    Raises:
        CheckpointError: a tensor is missing from the folder, or has another shape or dtype there.
    """
    saved, keys = _SavedTensors(folder), _keys_in_files(model)
    with torch.no_grad():
        for name, tensor in _changing_tensors(model, keys).items():
            if not local(tensor).numel():
                continue
            candidates = [(OTHER, name), *keys.get(_place(tensor), [])]
            value = next((found for key in candidates if (found := saved.get(key)) is not None), None)
            if value is None:
                raise CheckpointError(f"{folder} holds no {name}; the checkpoint is of another model, so give this run another output_dir.")
            if value.shape != tensor.shape or value.dtype != tensor.dtype:
                raise CheckpointError(
                    f"{folder} holds {name} as {_spec(value)} where this run has {_spec(tensor)}; "
                    "load the model in the dtype and shape it was trained in, or give this run another output_dir."
                )
            fill(tensor, value)


def adapter_names(model: nn.Module) -> tuple[str, ...]:
    """Names of a PeftModel's adapters; none for any other model. Does not import peft."""
    peft = sys.modules.get("peft")
    return tuple(model.peft_config) if peft is not None and isinstance(model, peft.PeftModel) else ()


def _changing_tensors(model: nn.Module, keys: Mapping[Place, list[Key]]) -> dict[str, Tensor]:
    """All parameters and buffers, each once under its first name; of an adapter's base only what is not frozen.

    An adapter that is frozen, a reference say, belongs to the run all the same.
    """
    everything = not adapter_names(model)
    named: dict[Place, tuple[str, Tensor]] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        place = _place(tensor)
        if tensor.numel() and (everything or tensor.requires_grad or place in keys or not isinstance(tensor, nn.Parameter)):
            named.setdefault(place, (name, tensor))
    return dict(named.values())


def _embeddings_of_base(model: nn.Module) -> Iterator[Tensor]:
    """Frozen or not: PEFT writes them beside an adapter where they were resized, or have an adapter of their own."""
    if adapter_names(model):
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):  # type: ignore[operator]
            yield from () if layer is None else layer.parameters()


def _keys_in_files(model: nn.Module) -> dict[Place, list[Key]]:
    """Where a tensor lies → the keys under which `save_pretrained` may have written it."""
    keys: dict[Place, list[Key]] = defaultdict(list)
    state = model.state_dict(keep_vars=True)
    for adapter in adapter_names(model):
        from peft import get_peft_model_state_dict

        # Embeddings that PEFT may add are those of the frozen base; asking for them can ask the hub.
        for key, tensor in get_peft_model_state_dict(model, state, adapter_name=adapter, save_embedding_layers=False).items():
            keys[_place(tensor)].append(("" if adapter == "default" else adapter, key))
    if not keys:
        for key, tensor in state.items():
            if isinstance(tensor, Tensor):
                keys[_place(tensor)].append(("", key))
    return keys


class _SavedTensors:
    """Key → tensor, read one at a time."""

    def __init__(self, root: Path) -> None:
        from safetensors import safe_open

        self._files = {}
        for path in sorted(root.rglob("*.safetensors")):
            where = OTHER if path == root / OTHER else path.parent.relative_to(root).as_posix().removeprefix(".")
            file = safe_open(path, framework="pt")
            self._files.update({(where, key): file for key in file.keys()})  # noqa: SIM118  safe_open does not iterate

    def get(self, key: Key) -> Tensor | None:
        return self._files[key].get_tensor(key[1]) if key in self._files else None


def _place(tensor: Tensor) -> Place:
    """Equal for two tensors exactly where they are the same memory seen the same way: tied weights."""
    part = local(tensor)
    if not part.numel():  # of a small tensor a rank may hold nothing, which lies nowhere
        return (id(tensor),)
    return part.untyped_storage().data_ptr(), part.storage_offset(), tensor.dtype, tuple(tensor.shape), part.stride()


def _same_bits(tensor: Tensor, saved: Tensor | None) -> bool:
    if saved is None or saved.shape != tensor.shape or saved.dtype != tensor.dtype:
        return False
    # As bytes: NaN is not equal to itself, and -0.0 equals 0.0.
    live = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return torch.equal(live, saved.view(-1).view(torch.uint8))


def _spec(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws a bar for every save, which would break ours."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
