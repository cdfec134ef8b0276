"""The memory estimate: sums worked by hand, the trace against what autograd really keeps, and the micro-batch that follows."""

import os
import subprocess
import sys
import weakref
from dataclasses import replace
from functools import cache

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from burnish.config.model import ModelConfig
from burnish.config.sft import SFTConfig
from burnish.models import memory
from burnish.models.attention import NAME, register
from burnish.models.load import ModelError
from burnish.models.memory import PROCESS, MemoryEstimate, Placement, estimate_memory, fitting_tokens, microbatch_tokens, skeleton_policy
from burnish.models.optimizer import from_config
from burnish.models.policy import Paths, Policy
from burnish.models.trace import Held, TraceError, trace_microbatch, trace_optimizer
from burnish.ops.logprobs import CHUNK_ELEMENTS
from tests.laws.trees import make_tree
from tests.models.families import FAMILIES, tiny_model
from tests.tiny import save_tiny_model

CPU = torch.device("cpu")
LLAMA = 86_912
"""Bytes of 21,728 parameters in float32: embedding and head 2 x 97 x 32, and two layers of 7,760 with the last norm."""


def tiny_policy(family="llama", *, checkpointing=False, compute=None, **changes):
    register()
    model = tiny_model(family, dtype=torch.float32, **changes).train()
    if FAMILIES[family][2] == "tree":
        model.set_attn_implementation(NAME)
    if "num_experts_per_tok" in FAMILIES[family][1]:
        model.set_experts_implementation("grouped_mm")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Policy(model, paths=Paths(attention=FAMILIES[family][2]), compute_dtype=compute)


def estimate(policy, placement=None, **options):
    return estimate_memory(policy, SFTConfig(**options), placement or Placement(), row=64)


def test_what_is_counted_from_shapes():
    """AdamW holds two moments and a float32 step for each of the 21 tensors; SGD nothing; all gradients are below 32 MiB."""
    found = estimate(tiny_policy())
    assert (found.whole, found.gradients, found.holes, found.process) == (LLAMA, LLAMA, LLAMA, PROCESS["cpu"])
    assert found.weights - LLAMA == sum(4 * b.numel() for b in tiny_policy().buffers()) == 32
    assert found.optimizer == 2 * LLAMA + 4 * 21
    assert estimate(tiny_policy(), optim="sgd").optimizer == 0
    assert estimate(tiny_policy(compute=torch.bfloat16)).process == PROCESS["cpu"] + 64 * 2**20  # oneDNN's kernels
    assert found.communication == 0
    assert "communication" not in found.rows(64)


def test_tied_weights_are_counted_once():
    tied, apart = (estimate(tiny_policy(name)).whole for name in ("llama-tied", "llama"))
    assert apart - tied == 4 * 97 * 32


def test_an_adapter_has_small_gradients():
    model = get_peft_model(tiny_policy().model, LoraConfig(r=2, target_modules=["q_proj"]))
    found = estimate(Policy(model))
    assert found.gradients == 4 * 2 * 2 * (32 + 32)
    assert found.optimizer == 2 * found.gradients + 4 * 4
    assert found.whole == LLAMA + found.gradients


@pytest.mark.parametrize(("optim", "rows", "update"), [("adamw", 2, 0), ("muon", 1, 1), ("adafactor", 0, 1)])
def test_the_state_of_an_optimizer_is_what_it_really_makes(optim, rows, update):
    """`rows` floats of state per parameter at least; whether the update itself needs room beside it."""
    policy, args = tiny_policy(), SFTConfig(optim=optim)
    state, beside = trace_optimizer(policy.model, args)
    optimizer = stepped(policy.model, args)
    held = [t for one in optimizer.state.values() for t in one.values() if isinstance(t, torch.Tensor)]
    assert state == sum(t.untyped_storage().nbytes() for t in held)
    assert state >= rows * (LLAMA - 8 * 97 * 32)
    assert (beside > 0) == bool(update)


def stepped(model, args):
    optimizer, _ = from_config(args, model, 1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


class Alive(TorchDispatchMode):
    """Bytes of the tensors alive, on real tensors: an account of its own."""

    def __init__(self, known):
        super().__init__()
        self.sizes, self.most = {t.untyped_storage()._cdata: 0 for t in known}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor) and (key := one.untyped_storage()._cdata) not in self.sizes:
                self.sizes[key] = one.untyped_storage().nbytes()
                weakref.finalize(one.untyped_storage(), self.sizes.pop, key)
        self.most = max(self.most, sum(self.sizes.values()))
        return out


@pytest.mark.parametrize("family", ["llama", "llama-tied", "qwen3", "gemma3", "gpt2", "olmo2"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("compute", [None, torch.bfloat16])
def test_a_trace_holds_what_the_real_step_holds(family, checkpointing, compute):
    """Peaks of a micro-batch with gradients of an earlier one waiting: within a fiftieth, for the trace counts its tree, too."""
    policy = tiny_policy(family, checkpointing=checkpointing, compute=compute).train()
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    at = torch.arange(1, 64)
    tree = replace(make_tree(97, ((64, -1),)), index_N=at, source_N=at - 1, branch_N=at * 0)
    known = [*policy.parameters(), *(p.grad for p in policy.parameters()), *policy.buffers()]
    alive = Alive([*known, tree.token_ids_T, tree.position_T, tree.source_N, tree.index_N])
    with alive:
        policy(tree).logp_N.sum().backward()
    found = trace_microbatch(policy, 64, row=64)
    assert max(found.head, found.layers) == pytest.approx(alive.most, rel=0.02)
    assert found.saved <= found.head


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_traced(family):
    held = estimate(tiny_policy(family)).held(64)
    assert held.rough == ""
    assert 0 < held.saved < held.head


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_trace_changes_nothing(checkpointing):
    """Neither weights, gradients, training mode nor the random numbers that come next."""
    policy = tiny_policy("gpt2", checkpointing=checkpointing)
    before = {name: p.clone() for name, p in policy.named_parameters()}
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    trace_microbatch(policy, 64, row=64)
    trace_optimizer(policy.model, SFTConfig())
    assert torch.equal(torch.rand(4), wanted)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in policy.named_parameters())
    assert type(next(policy.parameters())) is torch.nn.Parameter


def test_activations_grow_with_tokens_and_shrink_under_checkpointing():
    held, checkpointed = (estimate(tiny_policy(num_hidden_layers=6, checkpointing=c)).held for c in (False, True))
    assert 1.9 < held(512).saved / held(256).saved < 2.1
    assert checkpointed(256).saved < held(256).saved / 6


def test_the_head_holds_two_chunks_on_each_kind_of_device(monkeypatch):
    """Of 8 rows and not of 4: two buffers of logits, and the gradient of 32 hidden states."""
    sizes = []
    for rows in (4, 8):
        monkeypatch.setitem(CHUNK_ELEMENTS, "npu", rows * 97)
        sizes.append(trace_microbatch(tiny_policy(), 64, row=64, kind="npu").head)
    assert sizes[1] - sizes[0] == 4 * 4 * (2 * 97 + 32)


def test_a_model_that_depends_on_its_data_is_estimated_by_a_rule_and_says_so():
    policy = tiny_policy("qwen3-moe")
    policy.model.set_experts_implementation("eager")
    with pytest.raises(TraceError, match="it does not run without data"):
        trace_microbatch(policy, 64, row=64)
    found = estimate(policy)
    assert found.held(64).saved > 0
    assert "activations by a rule of thumb, since it does not run without data" in found.describe(64)


def test_copies_hold_their_gradients_twice():
    found = estimate(tiny_policy(), Placement(processes=2))
    assert (found.weights - 32, found.gradients, found.communication) == (LLAMA, LLAMA, LLAMA)


LAYER = 4 * (32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32)
"""Of the tiny llama, in bytes of float32: queries and outputs, keys and values of half the heads, feed-forward, two norms."""


@pytest.mark.parametrize(
    ("fsdp", "shards", "layers"),
    [("full_shard", 4, 2), ("shard_grad_op", 4, 2), ("hybrid_shard", 2, 2), ("hybrid_shard_zero2", 2, 2)],
)
def test_shards(fsdp, shards, layers):
    """What is in no layer is gathered for the whole step; of three layers, two (one on its way) or all three; and one's gradient twice."""
    found = estimate(tiny_policy(num_hidden_layers=3), Placement(processes=4, per_node=2), fsdp=fsdp)
    rest = 4 * (2 * 97 * 32 + 32)
    assert found.whole == rest + 3 * LAYER
    assert found.gradients == found.whole // shards
    assert found.optimizer == (2 * found.whole + 4 * (3 + 9 * 3)) // shards
    gathered = 3 if fsdp in ("shard_grad_op", "hybrid_shard_zero2") else 2
    assert found.communication == rest + gathered * LAYER + 2 * LAYER


def test_fsdp_computes_in_the_compute_dtype_and_reduces_in_its_own():
    """Gathered in bfloat16, half as large; a layer's gradient in bfloat16 and once more in what is summed."""
    policy, placement = tiny_policy(compute=torch.bfloat16), Placement(processes=2)
    gathered = 2 * (2 * 97 * 32 + 32) + 2 * LAYER // 2
    assert estimate(policy, placement, fsdp="full_shard").communication == gathered + LAYER // 2 + LAYER
    assert estimate(policy, placement, fsdp="full_shard", fsdp_reduce_dtype="bfloat16").communication == gathered + LAYER
    assert estimate(policy, placement, fsdp="full_shard").held(64).saved < estimate(policy, placement).held(64).saved


def test_what_waits_in_the_memory_of_the_cpu_is_not_on_the_device():
    found = estimate(tiny_policy(), Placement(device="cuda", processes=2), fsdp="full_shard", fsdp_cpu_offload=True)
    assert (found.weights, found.gradients, found.optimizer, found.holes) == (32, 0, 0, 0)
    assert found.process == PROCESS["cuda"]


def test_a_skeleton_is_estimated_like_the_model(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    config = ModelConfig(model_name_or_path=str(folder), use_peft=True, lora_r=4)
    args = SFTConfig(gradient_checkpointing=True)
    policy = skeleton_policy(config, args, torch.float32)
    assert next(policy.parameters()).is_meta
    found = estimate(policy, **{"gradient_checkpointing": True})
    assert found.held(64).rough == ""
    assert found.whole > found.gradients * 4
    with pytest.raises(ModelError, match=r"^The memory of quantized weights is not estimated; leave out load_in_4bit or load_in_8bit"):
        skeleton_policy(replace(config, load_in_4bit=True), args, torch.float32)


def test_a_skeleton_has_the_adapter_of_its_folder(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    base = ModelConfig(model_name_or_path=str(folder), use_peft=True, lora_r=4)
    adapted = skeleton_policy(base, SFTConfig(), torch.float32)
    adapted.model.peft_config["default"].save_pretrained(tmp_path / "adapter")
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    again = skeleton_policy(
        ModelConfig(model_name_or_path=str(folder), adapter_name_or_path=str(tmp_path / "adapter")), SFTConfig(), torch.float32
    )
    assert sum(p.numel() for p in again.parameters() if p.requires_grad) == trained
    with pytest.raises(ModelError, match=r"^The adapter '.*nowhere' could not be read .*; give a folder that holds adapter_config.json.$"):
        skeleton_policy(
            replace(base, use_peft=False, lora_r=16, adapter_name_or_path=str(tmp_path / "nowhere")), SFTConfig(), torch.float32
        )


HOLES = """
import sys, torch
from burnish.models.memory import give_back_freed_blocks
if sys.argv[1] == "yes":
    give_back_freed_blocks()
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024
for _ in range(2):  # glibc raises its threshold when the first blocks are freed
    blocks = [torch.ones(2**19) for _ in range(100)]
    full = resident()
    del blocks[::2]
print(full - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another")
def test_freed_blocks_are_given_back():
    """Of 100 blocks of 2 MiB every second one is freed: 100 MiB, or holes that glibc keeps."""
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_MMAP_THRESHOLD_"}
    given = [
        int(subprocess.run([sys.executable, "-c", HOLES, word], env=environment, capture_output=True, text=True, check=True).stdout)
        for word in ("yes", "no")
    ]
    assert given[0] == pytest.approx(100, abs=5)
    assert given[1] < 50


def simple(weights, per_token):
    held = cache(lambda tokens: Held(saved=tokens * per_token, head=tokens * per_token, layers=0))
    return MemoryEstimate(whole=weights, weights=weights, gradients=2**30, optimizer=2**31, update=2**20, held=held)


def test_rows_add_up_and_words_say_them():
    held = {512: Held(saved=2**30, head=3 * 2**29, layers=2**29), 256: Held(saved=2**18, head=2**19, layers=2**18)}
    found = MemoryEstimate(whole=2**30, weights=2**30, gradients=2**30, update=2**20, held=held.__getitem__)
    assert found.rows(512) == {"weights": 2**30, "gradients": 2**30, "activations": 2**30, "head": 2**29}
    assert found.rows(256) == {"weights": 2**30, "gradients": 2**30, "update": 2**20}
    assert found.total(512) == 7 * 2**29
    assert found.describe(512) == "about 3.5 GiB (weights 1.00, gradients 1.00, activations 1.00, head 0.50)"


@pytest.mark.parametrize(
    ("gib", "per_token", "tokens"),
    [
        (100, 2**20, 512),  # 60% of 100 GiB leave room for 57,344 tokens; the CPU is no faster above 512
        (8, 2**21, 256),  # 4.8 - 4 GiB = 409 tokens of 2 MiB: the power of two below
        (1, 2**21, 256),  # nothing fits, and a run must have some
    ],
)
def test_tokens_of_a_micro_batch(monkeypatch, gib, per_token, tokens):
    monkeypatch.setattr(memory, "device_memory", lambda device: gib * 2**30)
    assert microbatch_tokens(simple(2**30, per_token), CPU) == tokens
    assert microbatch_tokens(simple(0, per_token), CPU) >= tokens


def test_tokens_that_fit():
    one = simple(2**30, 2**20)
    assert fitting_tokens(one, 4 * 2**30 + 1024 * 2**20, "cuda") == 1024
    assert fitting_tokens(one, 2**30, "cuda") == 0
