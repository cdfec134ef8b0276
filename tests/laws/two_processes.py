"""What each of two processes, or one alone, makes of the same step. Run as a module, it is one of several processes.

python -m tests.laws.two_processes OUTPUT, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from burnish.distributed.launch import Launch, barrier, gather, launch
from burnish.distributed.wrap import Sharding
from burnish.models.policy import Paths
from tests.laws.continued import build as build_again
from tests.laws.continued import cut_short, weights, whole
from tests.laws.exact import float64_throughout
from tests.laws.methods import CASES, Case
from tests.laws.runs import Outcome, make_run, take, whole_step

RANKS = 2
TASKS = {"reward": "SEQ_CLS", "process_reward": "TOKEN_CLS"}
SITUATIONS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "uneven": (7, 60, {}),
    "one micro-batch": (7, 10**6, {}),
    "fewer examples than ranks": (1, 10**6, {}),
    "lora": (7, 60, {"lora": True}),
    "lora, fewer examples than ranks": (1, 10**6, {"lora": True}),
    "branch by branch": (7, 60, {"paths": Paths(attention="branches")}),
    "model's head": (7, 60, {"paths": Paths(attention="branches", head="model")}),
    "checkpointed": (7, 60, {"checkpointing": True}),
    "fsdp": (7, 60, {"sharding": Sharding()}),
    "fsdp, fewer examples than ranks": (1, 10**6, {"sharding": Sharding()}),
    "fsdp, layers kept": (7, 60, {"sharding": Sharding(reshard=False)}),
    "fsdp, hybrid and offloaded": (7, 60, {"sharding": Sharding(hybrid=True, offload=True)}),
    "fsdp, lora": (7, 60, {"lora": True, "sharding": Sharding()}),
    "fsdp, checkpointed": (7, 60, {"checkpointing": True, "sharding": Sharding()}),
}
"""Name → number of examples, max_tokens, and how the model is built and run."""


def situations(case: Case) -> list[str]:
    """Those in which a case is tried."""
    few = ["uneven", "one micro-batch", "fewer examples than ranks", *(["lora", "fsdp", "fsdp, checkpointed"] if case.whole else [])]
    return list(SITUATIONS) if case.loops else few


def build(case: Case, *, lora: bool = False, checkpointing: bool = False) -> Any:
    model = case.model()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if not lora:
        return model
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    head: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "lm_head"]}
    if case.kind != "causal":
        head = {"modules_to_save": ["score"], "task_type": TASKS[case.kind]}
    adapted = get_peft_model(model, LoraConfig(r=2, **{"target_modules": ["q_proj", "v_proj"], **head})).double()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return adapted


def outcomes(case: Case, situation: str, here: Launch) -> list[Outcome]:
    """Two steps over all examples that each change the weights, with an evaluation after each."""
    count, max_tokens, options = SITUATIONS[situation]
    ways = {name: options[name] for name in ("paths", "sharding") if name in options}
    model = build(case, **{name: value for name, value in options.items() if name not in ways})
    run = make_run(case, here=here, model=model, lr=0.05, **ways)
    examples = case.examples(count)
    batch = whole_step(examples, max_tokens=max_tokens, here=here)
    if here.world_size == 1 and "micro-batch" in case.exempt:
        # the cut is part of such a loss: this process takes the micro-batches of both
        shares = [whole_step(examples, max_tokens=max_tokens, here=Launch(rank=rank, world_size=RANKS)).trees for rank in range(RANKS)]
        batch = replace(batch, trees=tuple(tree for share in shares for tree in share if tree.N))
    evaluated = () if "micro-batch" in case.exempt else case.examples(5)
    return [take(run, batch, evaluated=evaluated, max_tokens=max_tokens) for _ in range(2)]


def trains(case: Case) -> bool:
    """Whether the whole trainer is run on several processes."""
    return case.whole and case.name not in ("dpo-bco_pair", "dpo-averaging")  # kept as dpo-following's state is


def trained(case: Case, folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    """The whole trainer, in float32, without dropout: the one thing that depends on which rank a row is on."""
    return whole(case, "adamw", folder, disable_dropout=True, save_steps=1, **options)


def stopped_and_continued(case: Case, run: Path, into: Path, here: Launch, **options: Any) -> dict[str, torch.Tensor]:
    if here.main:
        cut_short(run, 3, into)
    barrier(here)
    trainer = build_again(case, "adamw", into, disable_dropout=True, save_strategy="no", **options)
    trainer.train()
    return weights(trainer)


def main(output: Path) -> None:
    torch.set_num_threads(1)
    here = launch()
    with float64_throughout():
        bound = [case for case in CASES if "ranks" not in case.exempt]
        found: dict[Any, Any] = {
            (case.name, situation): outcomes(case, situation, here) for case in bound for situation in situations(case)
        }
    for case in filter(trains, bound):
        for fsdp, folder in ((False, output / "ddp" / case.name), (True, output / "fsdp" / case.name)):
            options = {"fsdp": "full_shard", "save_async": True} if fsdp else {}
            found[case.name, "trained", fsdp] = trained(case, folder, **options)
            found[case.name, "continued", fsdp] = stopped_and_continued(case, folder, Path(f"{folder} continued"), here, **options)
    torch.save(found, output / f"{here.rank}.pt")
    gather(None, here)  # nobody leaves before all have written


if __name__ == "__main__":
    main(Path(sys.argv[1]))
