"""References: which model they are, that they do not move unless asked, and how they move where they are."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from burnish.config.reference import KnownReferenceConfig
from burnish.data.tree import build_tree
from burnish.models.load import ModelError
from burnish.models.policy import Policy
from burnish.models.reference import WantedReference, before_sharding, make_reference
from tests.laws.preference_cases import pairs
from tests.models.families import tiny_model

TREE = build_tree(pairs(3))


def policy_of(model):
    return Policy(model, compute_dtype=torch.float64)


def lora(*, trained=False):
    torch.manual_seed(3)
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj", "down_proj"])).double()
    if trained:
        move(model, 0.2)
    return model


def move(model, by):
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype) * by)


def reference_of(policy, *, model=None, new_adapter=False, **options):
    wanted = WantedReference(model=model, args=KnownReferenceConfig(**options), identify=lambda model: "x")
    own = before_sharding(policy, wanted, lambda name: tiny_model(name))
    return make_reference(policy, own, wanted, identity="x", new_adapter=new_adapter)


def logp(policy):
    with torch.no_grad():
        policy.eval()
        return policy(TREE).logp_N


KINDS = {
    "a copy": (lambda: tiny_model("llama"), False),
    "the adapter off": (lora, True),
    "the adapter as it was": (lambda: lora(trained=True), False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_policy_as_it_was(kind):
    """To the bit at the start, and as it was then when the policy has moved; the policy itself stays where it is."""
    build, new = KINDS[kind]
    policy = policy_of(build())
    policy.train()
    reference, start = reference_of(policy, new_adapter=new), logp(policy)
    assert torch.equal(reference(TREE), start)
    move(policy.model, 0.1)
    moved, weights = logp(policy), [p.clone() for p in policy.parameters()]
    assert (moved - start).abs().max() > 1e-3
    assert torch.equal(reference(TREE), start)
    assert all(torch.equal(p, w) for p, w in zip(policy.parameters(), weights, strict=True))
    assert not reference(TREE).requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_asked_at_the_policys_temperature(kind):
    """Which a trainer that samples says after the reference is made. At another one they would differ though their weights are the same."""
    build, new = KINDS[kind]
    policy = policy_of(build())
    reference = reference_of(policy, new_adapter=new)
    plain = reference(TREE)
    policy.temperature = 0.5
    assert torch.equal(reference(TREE), logp(policy))
    assert (reference(TREE) - plain).abs().max() > 1e-2
    policy.temperature = 1.0
    assert torch.equal(reference(TREE), plain)


def test_dropout_is_the_policys_alone():
    policy = policy_of(tiny_model("llama", attention_dropout=0.5))
    policy.train()
    reference = reference_of(policy)
    assert torch.equal(reference(TREE), reference(TREE))
    assert policy.training


def test_a_model_of_its_own():
    other = tiny_model("llama", seed=9)
    reference = reference_of(policy_of(tiny_model("llama")), model=other)
    assert torch.equal(reference(TREE), logp(policy_of(tiny_model("llama", seed=9))))
    assert not any(p.requires_grad for p in other.parameters())


def test_what_the_tree_brings_is_not_computed_again():
    reference = reference_of(policy_of(tiny_model("llama")))
    known = torch.arange(float(TREE.N))
    reference.free()
    assert torch.equal(reference(replace(TREE, ref_logp_N=known)), known)
    with pytest.raises(ModelError, match="The reference was freed when its log-probs had been computed"):
        reference(TREE)


def test_refusals():
    policy = policy_of(tiny_model("llama"))
    with pytest.raises(ModelError, match="model and ref_model are the same object"):
        reference_of(policy, model=policy.model)
    with pytest.raises(ModelError, match="has a vocabulary of 50 tokens and the policy one of 97"):
        reference_of(policy, model=tiny_model("llama", vocab_size=50))
    with pytest.raises(ModelError, match="sync_ref_model needs a reference of the policy's own architecture"):
        reference_of(policy, model=tiny_model("llama", hidden_size=64), sync_ref_model=True)


@pytest.mark.parametrize("build", [lambda: tiny_model("llama"), lora])
def test_tr_dpo(build):
    """θ_ref ← α θ + (1-α) θ_ref (TR-DPO, arXiv:2404.09656, eq. 4), every two steps: with α = 1/4, 0 and 8 give 2, 2 and 16 give 5.5."""
    policy = policy_of(build())
    reference = reference_of(policy, new_adapter=False, sync_ref_model=True, ref_model_mixup_alpha=0.25, ref_model_sync_steps=2)
    name, parameter = next((n, p) for n, p in policy.model.named_parameters() if p.requires_grad)
    with torch.no_grad():
        reference.moving.reference[name].zero_()
        parameter.fill_(8.0)
    reference.after_step(1)
    assert (reference.moving.reference[name] == 0).all()
    reference.after_step(2)
    assert (reference.moving.reference[name] == 2).all()
    with torch.no_grad():
        parameter.fill_(16.0)
    reference.after_step(4)
    assert (reference.moving.reference[name] == 5.5).all()
    state = {key: value.clone() for key, value in reference.state().items()}
    reference.after_step(6)
    reference.restore(state)
    assert (reference.moving.reference[name] == 5.5).all()


def test_bema():
    """BEMA (arXiv:2508.00180, algorithm 1) with ρ = 0, κ = 1/2, η = 1: at step 4 the average moves by 4^-1/2 = 1/2 of the way and the
    correction is 1/4 of the distance from the start. Start 0, policy 8: average 4, reference 4 + 8/4 = 6."""
    policy = policy_of(tiny_model("llama"))
    with torch.no_grad():
        for p in policy.parameters():
            p.zero_()
    options = {"bema_lag": 0, "bema_ema_power": 0.5, "bema_bias_power": 1.0, "ref_model_sync_steps": 4}
    reference = reference_of(policy, sync_ref_model=True, ref_model_update="bema", **options)
    with torch.no_grad():
        for p in policy.parameters():
            p.fill_(8.0)
    reference.after_step(4)
    assert all((value == 6).all() for value in reference.moving.reference.values())
    assert all((value == 4).all() for value in reference.moving.average.values())
