"""From what the user named to a policy ready to train, with what was decided on the way in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from burnish.config.model import ModelConfig
from burnish.config.train import TrainConfig
from burnish.distributed.launch import Launch
from burnish.distributed.wrap import Sharding, copied, in_turn, make_mesh, same_everywhere, shard
from burnish.models.load import DTYPES, Kind, ModelError, check_kind, choose_compute_dtype, disable_dropout, load_model, load_skeleton
from burnish.models.lora import add_adapter, lora_config
from burnish.models.memory import device_memory, give_back_freed_blocks
from burnish.models.padding import set_padding
from burnish.models.policy import Policy, TreeModel
from burnish.models.probe import probe
from burnish.models.reference import Reference, WantedReference, before_sharding, make_reference
from burnish.models.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    policy: Any
    """A `Policy`, or a `Scorer` where that was asked for."""
    wrapped: nn.Module
    """The policy over all processes, as the loop calls it."""
    messages: tuple[str, ...]
    """Sentences for the user: dtypes and why, what is trained, what the probe found."""
    aux_loss_coef: float
    """Weight of a mixture-of-experts model's balancing loss; 0 where there is none."""
    reference: Reference | None = None
    """Where one was wanted."""


def start_policy(
    model: Any,
    config: ModelConfig,
    args: TrainConfig,
    peft_config: Any | None,
    tokenizer: Any,
    here: Launch,
    observe: Callable[[TreeModel], None],
    *,
    kind: Kind = "causal",
    reference: WantedReference | None = None,
) -> Started:
    """Loads (or takes) the model, adds the adapter, sets dropout and checkpointing, spreads it over all processes and probes it;
    and the same for its reference.

    Where it is sharded it waits on the CPU until its layers are, one after another, and only so many ranks of a machine hold
    all of it at once as its memory allows. `observe` sees the policy before it is sharded and probed. Raises ModelError.
    """
    if here.device.type == "cpu":
        give_back_freed_blocks()
    sharding = _sharding(config, args, here)
    mesh = None if sharding is None else make_mesh(here, sharding)
    named = isinstance(model, str | Path)
    adapter, heard = peft_config or lora_config(config, kind), list[str]()
    with in_turn(here, _at_once(config, here, kind) if named and mesh else here.local_world_size):
        place = here.device if mesh is None else torch.device("cpu")
        loaded = load_model(config, place, kind, heard.append) if named else model if mesh is not None else model.to(place)
        base = "" if reference is None else reference.identify(loaded)
        loaded = _dressed(loaded, config, args, adapter, tokenizer, kind)
        heard += set_padding(loaded, tokenizer) if kind != "causal" else ()
        if mesh is not None and not named:
            same_everywhere(loaded, here)
        policy, coefficient, why = _policy(loaded, config, args, here, kind)
        observe(policy)
        own = None if reference is None else before_sharding(policy, reference, lambda name: load_model(_of_reference(config, name), place))
        identity = "" if reference is None else reference.identify(policy.model if own is None else own.model)
        total, trained = (sum(p.numel() for p in loaded.parameters() if p.requires_grad or every) for every in (True, False))
        mixed = sharding is not None and policy.compute_dtype is not next(loaded.parameters()).dtype
        for one in filter(None, (policy, own)):
            if sharding is not None and mesh is not None:
                shard(one, here, replace(sharding, compute_dtype=policy.compute_dtype if mixed else None), mesh)
            else:
                one.to(here.device)
    found = [probe(one, wanted=config.attn_implementation, mixed=mixed, device=here.device) for one in filter(None, (policy, own))]
    name, compute = type(policy.causal_model).__name__, str(policy.compute_dtype).removeprefix("torch.")
    if mesh is not None and any(one.paths.attention == "branches" for one in found):
        raise ModelError(f"{name} runs branch by branch, as often as each rank's rows ask for, which shards do not allow; use fsdp='no'.")
    weights = str(next(loaded.parameters()).dtype).removeprefix("torch.")
    messages = [
        f"{name}: {total:,} parameters, {trained:,} trained ({trained / total:.1%}); "
        f"weights {weights}, compute {compute} ({why}), on {here.device}.",
        *heard,
        *found[0].messages,
        *(f"Reference: {message}" for one in found[1:] for message in one.messages),
    ]
    if args.fsdp != "no" and mesh is None:
        messages.append(f"fsdp={args.fsdp!r} has nothing to shard over: this is the only process.")
    made = None
    if reference is not None:
        new = own is None and adapter is not None and _begins_as_its_base(adapter)
        made = make_reference(policy, own, reference, identity=f"{base if new else identity} {compute}", new_adapter=new)
    wrapped = policy if mesh is not None else copied(policy, here)
    return Started(policy=policy, wrapped=wrapped, messages=tuple(messages), aux_loss_coef=coefficient, reference=made)


def _policy(loaded: Any, config: ModelConfig, args: TrainConfig, here: Launch, kind: Kind) -> tuple[Any, float, str]:
    """The policy, the weight of its balancing loss, and why it computes in its dtype."""
    coefficient = _aux_loss_coef(loaded.config.get_text_config().to_dict(), args, str(config.model_name_or_path))
    compute, why = choose_compute_dtype(args.compute_dtype, here.device, next(loaded.parameters()).dtype)
    policy = (Policy if kind == "causal" else Scorer)(loaded, compute_dtype=compute, aux_loss=coefficient > 0)
    if args.gradient_checkpointing:
        policy.causal_model.gradient_checkpointing_enable({"use_reentrant": False})
    return policy, coefficient, why


def _begins_as_its_base(adapter: Any) -> bool:
    """Whether a new adapter changes nothing before it is trained, neither by itself nor in the base."""
    return adapter.to_dict().get("init_lora_weights") in (True, "gaussian")


def _of_reference(config: ModelConfig, name: str) -> ModelConfig:
    """The options under which a reference is loaded by name: the policy's, without its adapter."""
    return replace(config, model_name_or_path=name, model_revision="main", adapter_name_or_path=None, use_peft=False)


def _dressed(loaded: Any, config: ModelConfig, args: TrainConfig, peft_config: Any | None, tokenizer: Any, kind: Kind) -> Any:
    """With its adapter, and without dropout where `args` say so."""
    rows = loaded.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"The tokenizer has {len(tokenizer):,} tokens and the embedding of {config.model_name_or_path or 'the model'} {rows:,}; "
            "give the model's own tokenizer, or a model after resize_token_embeddings."
        )
    check_kind(loaded, kind)
    if peft_config is not None:
        loaded = add_adapter(loaded, peft_config, kind)
    if args.disable_dropout:
        disable_dropout(loaded)
    return loaded


def _sharding(config: ModelConfig, args: TrainConfig, here: Launch) -> Sharding | None:
    """None where nothing is sharded. Its compute dtype is decided when the weights are known."""
    if args.fsdp == "no" or here.world_size == 1:
        return None
    if config.load_in_4bit or config.load_in_8bit:
        raise ModelError(f"fsdp={args.fsdp!r} does not shard quantized weights; use fsdp='no', or load the model unquantized.")
    return Sharding(
        reshard=args.fsdp in ("full_shard", "hybrid_shard"),
        hybrid=args.fsdp.startswith("hybrid"),
        offload=args.fsdp_cpu_offload,
        reduce_dtype=DTYPES[args.fsdp_reduce_dtype],
    )


def _at_once(config: ModelConfig, here: Launch, kind: Kind) -> int:
    """How many ranks of a machine may hold the whole model in its memory at the same time."""
    size = sum(p.numel() * p.element_size() for p in load_skeleton(config, kind).parameters())
    return max(1, min(here.local_world_size, int(0.6 * device_memory(torch.device("cpu")) / size)))


def _aux_loss_coef(config: dict[str, Any], args: TrainConfig, name: str) -> float:
    asked = args.router_aux_loss_coef
    if asked and "router_aux_loss_coef" not in config:
        raise ModelError(f"router_aux_loss_coef is {asked}, and {name} is not a mixture of experts with a balancing loss; leave it out.")
    if asked is None:
        return float(config.get("router_aux_loss_coef") or 0.0) if config.get("output_router_logits") else 0.0
    return asked
