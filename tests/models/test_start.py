"""Sharding a model as a run starts, on two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.laws.test_ranks import free_port
from tests.models.families import FAMILIES, tiny_model

ROOT = Path(__file__).parents[2]
RANK = """
import json, sys, time
from pathlib import Path
import torch
from burnish.config.model import ModelConfig
from burnish.config.sft import SFTConfig
from burnish.distributed.launch import gather, launch
from burnish.distributed.shards import whole as whole_tensor
from burnish.models import start
from burnish.models.load import ModelError
from burnish.models.probe import probe_tree
from tests.laws.methods import tokenizer
from tests.models.families import tiny_model

torch.set_num_threads(1)
here, folder, found, whole = launch(), Path(sys.argv[1]), {}, []

def count(policy):
    whole.append(sum(p.numel() for p in policy.parameters()))

def first(policy):
    return whole_tensor(next(policy.parameters()).detach()).tolist()

def begin(model, observe=count, **options):
    name = model if isinstance(model, str) else None
    return start.start_policy(model, ModelConfig(model_name_or_path=name), SFTConfig(**options), None, tokenizer(), here, observe)

for dtype in ("float32", "bfloat16"):
    for fsdp in ("no", "full_shard"):
        started = begin(tiny_model("llama", dtype=torch.float32), fsdp=fsdp, compute_dtype=dtype)
        tree = probe_tree(started.policy.causal_model.config.vocab_size)
        with torch.no_grad():
            found[f"{dtype} {fsdp}"] = started.wrapped(tree).logp_N.tolist()
            started.policy.logits(tree.token_ids_T[None])
        found[f"{dtype} {fsdp} path"] = started.policy.paths.attention
        held = sum(p.to_local().numel() if fsdp != "no" else p.numel() for p in started.policy.parameters())
        found[f"{dtype} {fsdp} held"] = (held, whole[-1])

for fsdp in ("no", "full_shard"):
    mine = tiny_model("llama", dtype=torch.float32, seed=here.rank)
    found[f"of rank 0 {fsdp}"] = first(begin(mine, fsdp=fsdp, compute_dtype="float32").policy)
for dtype in ("float32", "bfloat16"):
    mine = tiny_model("llama", dtype=torch.bfloat16)
    policy = begin(mine, fsdp="full_shard", compute_dtype="bfloat16", fsdp_reduce_dtype=dtype).policy
    found[f"{dtype} reduced"] = str(policy._get_fsdp_state()._mp_policy.reduce_dtype)

try:
    begin(tiny_model("mamba", dtype=torch.float32), fsdp="full_shard", compute_dtype="float32")
except ModelError as error:
    found["mamba"] = str(error)

def seen(policy):
    clocks.append(time.monotonic())
    time.sleep(0.3)
    clocks.append(time.monotonic())

for name, memory in (("together", 2**40), ("by turns", 0)):
    clocks = []
    start.device_memory = lambda device: memory
    begin(str(folder / "model"), observe=seen, fsdp="full_shard", compute_dtype="float32")
    found[name] = gather(clocks, here)
(folder / f"{here.rank}.json").write_text(json.dumps(found))
gather(None, here)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tiny_model("llama", dtype=torch.float32).save_pretrained(folder / "model")
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(folder)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": "."},
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    try:
        assert [rank.wait(120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_shards_compute_what_the_whole_computes(found):
    for rank in found:
        assert rank["float32 full_shard"] == pytest.approx(rank["float32 no"], rel=1e-5)
        assert rank["bfloat16 full_shard"] == pytest.approx(rank["bfloat16 no"], rel=0.05, abs=0.1)
        assert rank["bfloat16 full_shard"] != rank["float32 full_shard"]
        assert {rank[f"{dtype} {fsdp} path"] for dtype in ("float32", "bfloat16") for fsdp in ("no", "full_shard")} == {"tree"}


def test_each_rank_holds_half_and_is_identified_by_the_whole(found):
    whole = sum(p.numel() for p in tiny_model("llama").parameters())
    assert [rank["float32 no held"] for rank in found] == [[whole, whole]] * 2
    held, identities = zip(*(rank["float32 full_shard held"] for rank in found), strict=True)
    assert sum(held) == whole
    assert max(held) <= 0.51 * whole
    assert identities == (whole, whole)


def test_models_that_differ_become_that_of_rank_0(found):
    wanted = next(tiny_model("llama", dtype=torch.float32, seed=0).parameters()).tolist()
    for rank in found:
        assert rank["of rank 0 no"] == rank["of rank 0 full_shard"] == wanted


def test_gradients_are_summed_in_the_dtype_that_was_asked_for(found):
    """Of weights that are computed in their own dtype, too."""
    for rank in found:
        assert (rank["float32 reduced"], rank["bfloat16 reduced"]) == ("torch.float32", "torch.bfloat16")


def test_a_model_that_runs_branch_by_branch_is_not_sharded(found):
    assert FAMILIES["mamba"][2] == "branches"
    assert {rank["mamba"] for rank in found} == {
        "MambaForCausalLM runs branch by branch, as often as each rank's rows ask for, which shards do not allow; use fsdp='no'."
    }


def test_ranks_take_turns_where_the_memory_is_short_of_two_models(found):
    (a, b), (c, d) = found[0]["together"]
    assert max(a, c) < min(b, d)
    (a, b), (c, d) = found[0]["by turns"]
    assert b <= c
