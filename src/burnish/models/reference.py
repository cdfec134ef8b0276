"""References: the policy that log-ratios are taken against, as a function from a token tree to log-probs. Never a gradient.

*The reference is the policy as it was at the start*, unless the user names another model:

    a whole model is trained                         a frozen copy of it; none where its log-probs are computed ahead and kept on disk
    a new adapter is trained                         the base, with the adapter off
    an adapter that has been trained is continued    the adapter as it was, in the place of the one that is trained
    a model is given, or named                       that model

A reference may follow the policy: TR-DPO's mixture (Gorbatovski et al. 2024, arXiv:2404.09656, eq. 4 and 5), or BEMA's average
(Block et al. 2025, arXiv:2508.00180, algorithm 1). With an adapter it is the adapter's factors that are averaged, not their products.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from burnish.config.reference import ReferenceConfig
from burnish.distributed.shards import fill, local, whole
from burnish.models.load import ModelError, disable_dropout
from burnish.models.policy import Policy
from burnish.types import TokenTree


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedReference:
    """What a trainer asks for."""

    model: Any
    """A model, a folder or a hub id; None: the policy as it is at the start."""
    args: ReferenceConfig
    identify: Callable[[nn.Module], str]
    """From a model to one line that is the same for the same architecture, configuration and weights."""


class Reference:
    """Calls `policy` inside of `as_it_was()`, in which it is the reference, at the temperature that `trained` has then (None: its own)."""

    def __init__(
        self, policy: Policy, *, identity: str, trained: Policy | None = None,
        as_it_was: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:  # fmt: skip
        self.identity = identity
        """The same for the same model: log-probs on disk are kept under it."""
        self.moving: Following | None = None
        self._policy: Policy | None = policy
        self._trained, self._as_it_was = policy if trained is None else trained, as_it_was

    @torch.no_grad()
    def __call__(self, tree: TokenTree) -> Tensor:
        """Log-prob of every target: `[N]`, in nats; those that the tree brings with it where it does.

        Raises ModelError after `free`.
        """
        if tree.ref_logp_N is not None:
            return tree.ref_logp_N
        if self._policy is None:
            raise ModelError(
                "The reference was freed when its log-probs had been computed, and these rows were not among its data; "
                "give them as eval_dataset when the trainer is made, or use precompute_ref_log_probs=False."
            )
        training, self._policy.temperature = self._policy.training, self._trained.temperature
        self._policy.eval()
        try:
            with self._as_it_was():
                return self._policy(tree).logp_N
        finally:
            self._policy.train(training)

    def after_step(self, step: int) -> None:
        """Where it follows the policy, it does so now."""
        if self.moving is not None:
            self.moving.after_step(step)

    def state(self) -> dict[str, Tensor]:
        """What of it changes while training, in whole tensors; call on every rank."""
        return {} if self.moving is None else self.moving.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state` gave."""
        if self.moving is not None:
            self.moving.restore(state)

    def free(self) -> None:
        """Nothing is kept of it but what is on disk."""
        self._policy, self.moving = None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """Tensors of a reference that follow those of the policy, name by name: part of a checkpoint."""

    reference: Mapping[str, Tensor]
    policy: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    """The policy at the start, for BEMA; else empty."""
    average: Mapping[str, Tensor]
    """BEMA's plain average; else empty."""
    args: ReferenceConfig

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Every `ref_model_sync_steps` steps."""
        args = self.args
        if step % args.ref_model_sync_steps:
            return
        if args.ref_model_update == "mixup":
            for name, tensor in self.reference.items():
                local(tensor).lerp_(local(self.policy[name]).to(tensor.dtype), args.ref_model_mixup_alpha)
            return
        elapsed = args.bema_lag + step
        weight, bias = elapsed**-args.bema_ema_power, elapsed**-args.bema_bias_power
        for name, tensor in self.reference.items():
            now, average = local(self.policy[name]), local(self.average[name])
            average.lerp_(now.to(average.dtype), weight)
            local(tensor).copy_(average + bias * (now - local(self.start[name])))

    def state(self) -> dict[str, Tensor]:
        """Whole tensors; call on every rank."""
        named = {f"reference.{name}": tensor for name, tensor in self.reference.items()}
        named |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        return {name: whole(tensor.detach()) for name, tensor in named.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state` gave. `start` is the policy's own, of the run's first process as of this one."""
        for kind, tensors in (("reference", self.reference), ("average", self.average)):
            for name, tensor in tensors.items():
                fill(tensor, state[f"{kind}.{name}"])


def before_sharding(policy: Policy, wanted: WantedReference, load: Callable[[str], Any]) -> Policy | None:
    """The model that is the reference, where it is one of its own; None where the policy can be made the reference. Raises ModelError."""
    from peft import PeftModel

    if wanted.model is policy.model:
        raise ModelError("model and ref_model are the same object, which training changes; leave ref_model out, and a copy is taken.")
    if wanted.model is not None:
        model = load(wanted.model) if isinstance(wanted.model, str) else wanted.model
        _same_vocabulary(model, policy)
    elif isinstance(policy.model, PeftModel) or not wanted.args.held:
        return None
    else:
        model = copy.deepcopy(policy.model)
    disable_dropout(model)
    return Policy(model.requires_grad_(False).eval(), compute_dtype=policy.compute_dtype)


def _same_vocabulary(model: Any, policy: Policy) -> None:
    theirs, ours = (one.get_input_embeddings().weight.shape[0] for one in (model, policy.causal_model))
    if theirs < ours:
        name = model.config.name_or_path or "the reference"
        raise ModelError(
            f"The reference {name} has a vocabulary of {theirs:,} tokens and the policy one of {ours:,}; "
            "use a reference that was trained with the same tokenizer."
        )


def make_reference(policy: Policy, own: Policy | None, wanted: WantedReference, *, identity: str, new_adapter: bool) -> Reference:
    """After sharding and probing. `own` is what `before_sharding` gave; `new_adapter`: the policy without its adapter is the reference."""
    args = wanted.args
    trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
    if own is not None:
        reference = Reference(own, identity=identity, trained=policy)
        theirs: Mapping[str, Tensor] = {name: p for name, p in own.model.named_parameters() if name in trained}
    elif new_adapter and not args.sync_ref_model:
        return Reference(policy, identity=identity, as_it_was=policy.model.disable_adapter)
    elif not args.held:
        return Reference(policy, identity=identity)  # nothing has been trained yet when it is asked
    else:
        theirs = {name: p.detach().clone() for name, p in trained.items()}
        reference = Reference(policy, identity=identity, as_it_was=lambda: swapped(trained, theirs))
    if args.sync_ref_model:
        if any(name not in theirs or theirs[name].shape != p.shape for name, p in trained.items()):
            raise ModelError("sync_ref_model needs a reference of the policy's own architecture; leave it out, or leave ref_model out.")
        bema = args.ref_model_update == "bema"
        copies = [{name: p.detach().clone() for name, p in trained.items()} for _ in range(2 if bema else 0)] or [{}, {}]
        reference.moving = Following(reference=theirs, policy=trained, start=copies[0], average=copies[1], args=args)
    return reference


@contextmanager
def swapped(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the parameters have other values. In place: whoever holds a parameter sees them."""
    now = {name: p.detach().clone() for name, p in parameters.items()}
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(values[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(now[name])
