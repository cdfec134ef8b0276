"""Optimizers by name: which tensor goes where, what is decayed, what is refused, and that a checkpoint sees one optimizer."""

import copy

import pytest
import torch

from burnish.models.optimizer import OPTIMIZERS, Together, make_optimizer
from tests.models.families import tiny_model

RATES = {"learning_rate": 0.1, "weight_decay": 0.01, "betas": (0.8, 0.9), "epsilon": 1e-6}


def make(name, model=None, **options):
    model = model or tiny_model("qwen2", dtype=torch.float32)
    return model, make_optimizer(name, model, **RATES, **options)


def names_of(model, parameters):
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)] for p in parameters}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_trained_tensor_is_in_it_once(name):
    model = tiny_model("qwen2", dtype=torch.float32)
    model.model.norm.weight.requires_grad_(False)
    _, optimizer = make(name, model)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(map(id, held)))
    assert names_of(model, held) == {n for n, p in model.named_parameters() if n != "model.norm.weight"}


@pytest.mark.parametrize("name", ["adamw", "adafactor", "sgd"])
def test_matrices_are_decayed_and_vectors_are_not(name):
    """Qwen2 has biases and norms, both vectors."""
    model, optimizer = make(name)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    assert names_of(model, spared["params"]) == {n for n in dict(model.named_parameters()) if "norm" in n or n.endswith("bias")}
    assert all(p.ndim == 2 for p in decayed["params"])


def test_adamw_is_fused_and_has_its_rates():
    _, optimizer = make("adamw")
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.AdamW
    assert (group["lr"], group["betas"], group["eps"], group["fused"]) == (0.1, (0.8, 0.9), 1e-6, True)
    assert make("adamw", fused=False, amsgrad=True)[1].param_groups[0]["amsgrad"] is True


def test_muon_has_the_layers_matrices_and_adamw_the_rest():
    model, optimizer = make("muon")
    muon, adamw = optimizer.parts
    assert (type(muon), type(adamw)) == (torch.optim.Muon, torch.optim.AdamW)
    matrices = names_of(model, [p for g in muon.param_groups for p in g["params"]])
    assert matrices == {n for n in dict(model.named_parameters()) if n.endswith("proj.weight")}
    rest = names_of(model, [p for g in adamw.param_groups for p in g["params"]])
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < rest
    assert muon.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.01, 0.0]


def test_muon_leaves_experts_of_three_axes_to_adamw():
    model = tiny_model("qwen3-moe", dtype=torch.float32)
    _, optimizer = make("muon", model)
    assert all(p.ndim == 2 for g in optimizer.parts[0].param_groups for p in g["params"])
    stacked = {n for n, p in model.named_parameters() if p.ndim == 3}
    assert stacked <= names_of(model, [p for g in optimizer.parts[1].param_groups for p in g["params"]])


def step(model, optimizer, seed):
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_together_is_its_parts():
    """Three steps of both at once = three steps of each alone."""
    model, optimizer = make("muon")
    twin = copy.deepcopy(model)
    _, alone = make("muon", twin)
    for seed in range(3):
        step(model, optimizer, seed)
        torch.manual_seed(seed)
        for p in twin.parameters():
            p.grad = torch.randn_like(p)
        for part in alone.parts:
            part.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_schedule_reaches_both_parts():
    _, optimizer = make("muon")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [g["lr"] for part in optimizer.parts for g in part.param_groups] == [0.05] * 3


def test_together_is_saved_and_loaded_as_one():
    """Its state looks like that of any optimizer, and continues to the bit; a schedule made before still reaches it."""
    model, optimizer = make("muon")
    step(model, optimizer, 0)
    state = copy.deepcopy(optimizer.state_dict())
    assert set(state) == {"state", "param_groups"}
    assert len(state["state"]) == len(list(model.parameters()))
    twin = copy.deepcopy(model)
    _, other = make("muon", twin)
    schedule = torch.optim.lr_scheduler.LambdaLR(other, lambda step: 1.0)
    other.load_state_dict(state)
    step(model, optimizer, 1)
    step(twin, other, 1)
    schedule.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    other.param_groups[0]["lr"] = 0.123
    assert other.parts[0].param_groups[0]["lr"] == 0.123
    assert isinstance(other, Together)


def test_one_part_alone_is_not_wrapped():
    model = tiny_model("llama", dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("proj.weight"))
    assert type(make("muon", model)[1]) is torch.optim.Muon


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError) as caught:
        make("adam")
    assert str(caught.value) == (
        "optim is 'adam'; choose one of adamw, adafactor, sgd, muon, or pass your own as optimizers=(optimizer, schedule)."
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_option_that_it_does_not_have_is_refused(name):
    with pytest.raises(
        ValueError, match=rf"^optim_args \['momentumm'\] do not all belong to {name}: .*unexpected keyword argument 'momentumm'"
    ):
        make(name, momentumm=0.9)


def test_nothing_to_train_is_refused():
    model = tiny_model("llama", dtype=torch.float32).requires_grad_(False)
    with pytest.raises(ValueError) as caught:
        make("adamw", model)
    assert str(caught.value) == (
        "No parameter of the model requires a gradient, so there is nothing to train; unfreeze some or add an adapter."
    )
