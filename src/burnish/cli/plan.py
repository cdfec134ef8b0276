"""`burnish plan sft`: what a run would hold on each device, from the configuration alone, and what to change where it is too much.

Every change has a price: how many times as long the same training takes. `PRICES` are rules of thumb for GPUs that a fast link joins;
what holds more widely is their order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import Any

import rich.console
import torch
from rich.table import Table

from burnish.cli.train import quiet_bars
from burnish.config.model import ModelConfig
from burnish.config.plan import PlanConfig
from burnish.config.sft import SFTConfig
from burnish.config.values import ConfigError
from burnish.models.load import choose_compute_dtype
from burnish.models.memory import ROW, SMALLEST, MemoryEstimate, Placement, estimate_memory, fitting_tokens, skeleton_policy
from burnish.models.policy import TreeModel
from burnish.models.trace import Held

ROOM = 0.9
"""Of a device's memory; the rest is for what the estimate misses."""
MOST_DEVICES = 4096
SHARDING = {"no": 0, "hybrid_shard_zero2": 1, "shard_grad_op": 1, "hybrid_shard": 2, "full_shard": 2}
"""How much each kind of fsdp shards: nothing, weights except while layers are computed, or always."""
PRICES: dict[str, tuple[float, str]] = {
    "shard_grad_op": (1.05, "gathers the weights for every micro-batch"),
    "full_shard": (1.1, "gathers the weights for every forward and every backward"),
    "gradient_checkpointing": (1.33, "computes every layer's forward twice"),
    "fsdp_cpu_offload": (3.0, "moves weights and gradients over the bus, and the CPU runs the optimizer"),
    "use_peft": (1.0, "trains an adapter in place of the model, which is another training"),
}
"""Option, or value of fsdp → how many times as long a step takes, and why."""


class PlanError(ValueError):
    """No number of devices would do. One sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One configuration on so many devices."""

    model: ModelConfig
    args: SFTConfig
    devices: int
    changes: tuple[str, ...] = ()
    """Keys of `PRICES`."""
    tokens: int | None = None
    """Of a micro-batch, where that is what changed."""

    @property
    def price(self) -> float:
        return prod(PRICES[change][0] for change in self.changes)

    def flags(self, asked: int) -> str:
        """What to add to the command line."""
        words = [f"--{change}" if change not in SHARDING else f"--fsdp {change}" for change in self.changes]
        words += [f"--devices {self.devices}"] if self.devices != asked else []
        return " ".join(words + ([f"--max_tokens_per_microbatch {self.tokens}"] if self.tokens else []))

    def why(self, asked: int) -> str:
        reasons = [f"{change} {PRICES[change][1]}" for change in self.changes]
        reasons += [f"{self.devices // asked} times as many devices, each with its share"] if self.devices != asked else []
        reasons += ["more micro-batches in a step, which GPUs feel below some thousand tokens"] if self.tokens else []
        return "; ".join(reasons)


class Planner:
    """Estimates plans for one kind of device. A skeleton is built, and a number of tokens traced, once for all that share them."""

    def __init__(self, hardware: PlanConfig, args: SFTConfig) -> None:
        self.hardware, self.row, self.room = hardware, args.max_length or ROW, ROOM * hardware.bytes
        self.least = max(SMALLEST, self.row)
        kind, asked = hardware.device_type, args.compute_dtype
        auto = kind == "cuda" and asked == "auto"
        self.compute = torch.bfloat16 if auto else choose_compute_dtype(asked, torch.device("cpu"))[0]
        self._policies: dict[Any, TreeModel] = {}
        self._held: dict[Any, Callable[[int], Held]] = {}
        self._estimates: dict[Any, MemoryEstimate] = {}

    def policy(self, plan: Plan) -> TreeModel:
        key = plan.args.gradient_checkpointing, plan.model.use_peft
        if key not in self._policies:
            self._policies[key] = skeleton_policy(plan.model, plan.args, self.compute)
        return self._policies[key]

    def estimate(self, plan: Plan) -> MemoryEstimate:
        if (plan.devices, plan.changes) not in self._estimates:
            policy = self.policy(plan)
            placement = Placement(device=self.hardware.device_type, processes=plan.devices, per_node=self.hardware.devices_per_node)
            found = estimate_memory(policy, plan.args, placement, row=self.row)
            held = self._held.setdefault((policy, plan.args.fsdp != "no" and plan.devices > 1), found.held)
            self._estimates[plan.devices, plan.changes] = replace(found, held=held)
        return self._estimates[plan.devices, plan.changes]

    def tokens(self, plan: Plan) -> int:
        """Of a micro-batch: as asked for, or the most that are worth it and fit; 0 where not even the longest row fits."""
        estimate = self.estimate(plan)
        if asked := plan.args.max_tokens_per_microbatch:
            asked = max(asked, self.row)  # a longer row has a micro-batch of its own
            return asked if estimate.total(asked) <= self.room else 0
        return self._most(estimate)

    def _most(self, estimate: MemoryEstimate) -> int:
        if estimate.total(self.least) > self.room:
            return 0
        return max(self.least, fitting_tokens(estimate, self.room, self.hardware.device_type))

    def cheapest(self, plan: Plan) -> tuple[Plan, int]:
        """The change that costs the least time and lets `plan` fit, and the tokens that then do.

        What trains the same model on the same devices goes before an adapter, and that before more devices. Raises PlanError.
        """
        free = replace(plan, args=replace(plan.args, max_tokens_per_microbatch=None))
        if plan.args.max_tokens_per_microbatch and (most := self._most(self.estimate(free))):
            return replace(free, tokens=most), most
        for candidates in (self._changes(free, adapter=False), self._changes(free, adapter=True), self._more_devices(free)):
            for candidate in sorted(candidates, key=lambda one: (one.devices, one.price)):
                if most := self._most(self.estimate(candidate)):
                    return candidate, most
        raise PlanError(
            f"A row of {self.row:,} tokens does not fit on {MOST_DEVICES:,} devices of {self.hardware.memory}, sharded and checkpointed; "
            "take devices with more memory, a smaller model or a smaller max_length."
        )

    def _changes(self, plan: Plan, *, adapter: bool) -> Iterator[Plan]:
        """Every combination of what is not on already and would have an effect, with an adapter or without."""
        args, model = plan.args, plan.model
        if adapter and (model.use_peft or model.adapter_name_or_path):
            return
        kinds = [kind for kind in ("shard_grad_op", "full_shard") if SHARDING[kind] > SHARDING[args.fsdp] and plan.devices > 1]
        singles = [*kinds, *(["gradient_checkpointing"] if not args.gradient_checkpointing else [])]
        if self.hardware.device_type == "cuda" and not args.fsdp_cpu_offload:
            singles.append("fsdp_cpu_offload")
        for count in range(0 if adapter else 1, len(singles) + 1):
            for changes in combinations(singles, count):
                kind: Any = next((one for one in reversed(changes) if one in SHARDING), args.fsdp)
                offload = args.fsdp_cpu_offload or "fsdp_cpu_offload" in changes
                if len(set(changes) & set(SHARDING)) > 1 or (offload and (kind == "no" or plan.devices == 1)):
                    continue
                checkpointing = args.gradient_checkpointing or "gradient_checkpointing" in changes
                try:
                    changed = replace(args, fsdp=kind, gradient_checkpointing=checkpointing, fsdp_cpu_offload=offload)
                except ConfigError:  # what the options refuse is no proposal: Adafactor with shards, say
                    continue
                if adapter:
                    yield replace(plan, args=changed, model=replace(model, use_peft=True), changes=("use_peft", *changes))
                else:
                    yield replace(plan, args=changed, changes=changes)

    def _more_devices(self, plan: Plan) -> Iterator[Plan]:
        """Twice as many and so on. More devices hold less each only where they shard."""
        devices = 2 * plan.devices
        while devices <= MOST_DEVICES:
            more = replace(plan, devices=devices)
            sharded = [more] if SHARDING[plan.args.fsdp] else []
            yield from (*sharded, *(one for one in self._changes(more, adapter=False) if "fsdp_cpu_offload" not in one.changes))
            devices *= 2


def plan_sft(hardware: PlanConfig, model: ModelConfig, args: SFTConfig) -> int:
    """Prints the plan; the exit status is 1 where the run does not fit as it is. Raises ConfigError, ModelError, PlanError."""
    quiet_bars()
    planner, plan = Planner(hardware, args), Plan(model=model, args=args, devices=hardware.devices)
    fits = planner.tokens(plan)
    tokens = fits or max(args.max_tokens_per_microbatch or 0, planner.least)
    better = None if fits else planner.cheapest(plan)
    record = _record(planner, plan, tokens) | {"fits": bool(fits)}
    if better is not None:
        record["change"] = _record(planner, *better) | {"flags": better[0].flags(plan.devices), "time": round(better[0].price, 2)}
        record["change"]["why"] = better[0].why(plan.devices)
    if hardware.json:
        print(json.dumps(record))
    else:
        _show(planner, record)
    return 0 if fits else 1


def _record(planner: Planner, plan: Plan, tokens: int) -> dict[str, Any]:
    """Bytes of one device, and what they are for."""
    estimate, policy = planner.estimate(plan), planner.policy(plan)
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    return {
        "model": plan.model.model_name_or_path,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "trained": trained,
        "compute_dtype": str(planner.compute).removeprefix("torch."),
        "devices": plan.devices,
        "device_bytes": planner.hardware.bytes,
        "tokens": tokens,
        "row": planner.row,
        "bytes": estimate.rows(tokens),
        "total": estimate.total(tokens),
        "rule_of_thumb": estimate.held(tokens).rough or None,
    }


def _show(planner: Planner, record: dict[str, Any]) -> None:
    console = rich.console.Console()
    change = record.get("change")
    table = Table(title=f"{record['model']}: GB on each device", title_justify="left")
    table.add_column("")
    columns = [("as asked", record)] + ([(change["flags"], change)] if change else [])
    for name, _ in columns:
        table.add_column(name, justify="right", overflow="fold")
    for part in dict.fromkeys(part for _, one in columns for part in one["bytes"]):
        table.add_row(part, *(f"{one['bytes'][part] / 1e9:.2f}" if part in one["bytes"] else "" for _, one in columns))
    table.add_section()
    table.add_row("total", *(f"{one['total'] / 1e9:.2f}" for _, one in columns))
    table.add_row("tokens of a micro-batch", *(f"{one['tokens']:,}" for _, one in columns))
    console.print(table)
    for sentence in _sentences(planner, record):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _sentences(planner: Planner, record: dict[str, Any]) -> Iterator[str]:
    yield f"{record['parameters']:,} parameters, {record['trained']:,} trained, compute in {record['compute_dtype']}."
    yield f"{record['devices']} x {planner.hardware.memory}, of which {1 - ROOM:.0%} stay free; rows of {record['row']:,} tokens at most."
    if record["rule_of_thumb"]:
        yield f"Activations are by a rule of thumb, since {record['rule_of_thumb']}."
    change = record.get("change")
    if change is None:
        yield f"It fits, with {record['tokens']:,} tokens in a micro-batch."
        return
    yield f"It does not fit: even a micro-batch of {record['tokens']:,} tokens takes {record['total'] / 1e9:.1f} GB."
    yield f"The cheapest change: {change['flags']}. Then {change['tokens']:,} tokens fit."
    yield f"Its price: a step takes {change['time']:g} times as long; {change['why']}."
