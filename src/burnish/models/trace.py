"""What a training step holds, found by running it on tensors that have a shape and no data (PyTorch's fake tensors).

The code that runs is the code that trains: the model's own layers under tree attention, autocast, checkpointing, the
chunked head, autograd and the optimizer. Every allocation and every release of a tensor is counted, so that a layer of a new
kind needs no formula. What it cannot see is what happens below PyTorch: buffers inside kernels, and holes in the heap.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from burnish.config.train import TrainConfig
from burnish.models.attention import NAME, register
from burnish.models.head import head_of
from burnish.models.optimizer import from_config
from burnish.models.policy import Columns, Policy, TreeModel
from burnish.models.scorer import Scorer
from burnish.ops.likelihood import nll_loss
from burnish.ops.logprobs import CHUNK_ELEMENTS, chunked_logprobs
from burnish.types import Node, TokenScores, TokenTree

QUANTIZED = ("Params4bit", "Int8Params")
"""bitsandbytes' weights, whose kernels do not run without data."""


class TraceError(RuntimeError):
    """The model cannot be run without data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The most bytes that one micro-batch holds beside weights, gradients and optimizer."""

    saved: int
    """Kept by autograd when the layers' forward is over."""
    head: int
    """While the head runs, forward or backward; `saved` is part of it."""
    layers: int
    """While the layers run: before the head, or after its backward."""
    rough: str = ""
    """Why this is by a rule of thumb; empty where it is traced."""


class _Ledger(TorchDispatchMode):
    """Bytes of all tensors alive that were made under it, and the most there were in each phase.

    Whoever asks a tensor for its value gets `answer`, or PyTorch's refusal where it is None.
    """

    def __init__(self, answer: float | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.live, self.phase, self.most = 0, "", Counter[str]()
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and self.answer is not None:
            return self.answer
        grouped = func is torch.ops.aten._grouped_mm.default
        out = _grouped_product(*args, **(kwargs or {})) if grouped else func(*args, **(kwargs or {}))
        if func is not torch.ops.prim.device.default:  # by far the most frequent, and gives no tensor
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.live += storage.nbytes()
            weakref.finalize(storage, self._forget, storage.nbytes()).atexit = False
            self.most[self.phase] = max(self.most[self.phase], self.live)

    def _forget(self, size: int) -> None:
        self.live -= size

    def enter(self, phase: str) -> int:
        """What is alive now; from now on `phase` is counted."""
        self.phase = phase
        self.most[phase] = max(self.most[phase], self.live)
        return self.live


def _grouped_product(a: Tensor, b: Tensor, offsets: Tensor, *_: Any) -> Tensor:
    """Of experts: `[tokens, K] @ [E, K, N]`, or `[K, tokens] @ [tokens, N]` for each E. Without data, PyTorch's own knows bfloat16 only."""
    shape = (len(offsets), len(a), b.shape[1]) if b.ndim == 2 else (a.shape[-2], b.shape[-1])
    return torch.empty(shape, dtype=a.dtype)


@contextmanager
def _ledger(answer: float | None = None) -> Iterator[_Ledger]:
    with FakeTensorMode(allow_non_fake_inputs=True), _Ledger(answer) as ledger:
        yield ledger


class _Watched(TreeModel):
    """Says when the head begins and ends. Its chunks are those of `kind`, though the tensors say "cpu"."""

    ledger: _Ledger
    kind: str
    saved: int = 0

    def forward(self, tree: TokenTree) -> Any:
        """And backward, for which a checkpointed layer runs again, with the parameters that this call was given."""
        outputs = super().forward(tree)
        loss = outputs.score_NK.sum() if isinstance(outputs, TokenScores) else nll_loss(outputs.logp_N).sum()
        (loss if outputs.aux_loss is None else loss + outputs.aux_loss).backward()
        return outputs

    def _by_branch(self, tree: TokenTree) -> tuple[Columns, None]:
        """Every row is a root, so that which targets are whose need not be looked up."""
        ends, source = [node.end for node in tree.nodes], tree.source_N
        runs = [self._branch(i, i, s, s) for i, s in zip(tree.token_ids_T.tensor_split(ends[:-1]), source.chunk(len(ends)), strict=True)]
        return tuple(torch.cat(column) for column in zip(*(result for _, result in runs), strict=True)), None

    def enter_head(self, hidden_N: Tensor) -> None:
        self.saved = self.ledger.enter("head")
        if hidden_N.requires_grad:
            hidden_N.register_hook(lambda _: self.ledger.enter("layers") and None)


class _WatchedPolicy(_Watched, Policy):
    def head(self, hidden_N: Tensor, target_N: Tensor) -> Columns:
        self.enter_head(hidden_N)
        head = head_of(self.causal_model, hidden_N, temperature=self.temperature)
        rows = CHUNK_ELEMENTS.get(self.kind, 2**26) // len(head.weights[0])
        return chunked_logprobs(head, target_N, chunk_rows=max(1, rows))


class _WatchedScorer(_Watched, Scorer):
    def head(self, hidden_N: Tensor, target_N: Tensor) -> Columns:
        self.enter_head(hidden_N)
        return super().head(hidden_N, target_N)


def _tree(tokens: int, row: int) -> TokenTree:
    """Rows of `row` tokens, `tokens` in all, every token trained."""
    starts = range(0, tokens, row)
    nodes = tuple(Node(start=a, end=min(a + row, tokens), parent=-1) for a in starts)
    index = torch.zeros(tokens - len(nodes), dtype=torch.long)
    return TokenTree(
        token_ids_T=torch.zeros(tokens, dtype=torch.long),
        position_T=torch.zeros(tokens, dtype=torch.long),
        nodes=nodes,
        index_N=index,
        source_N=index,
        branch_N=index,
        example_B=torch.zeros(len(nodes), dtype=torch.long),
        group_ids=("",) * len(nodes),
    )


@contextmanager
def _tree_attention(policy: TreeModel) -> Iterator[None]:
    """As the probe sets it for a model that passes, whether it has been probed already or not."""
    model = policy.causal_model
    plain = model.config._attn_implementation
    if policy.paths.attention == "tree":
        register()
        model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(plain)


def trace_microbatch(
    policy: TreeModel, tokens: int, *, row: int, kind: str = "cpu", sharded: bool = False, layers: tuple[str, ...] = ()
) -> Held:
    """Runs forward and backward of `tokens` tokens, in rows of `row`, with gradients of earlier micro-batches waiting.

    `policy` may be anywhere, also on the meta device; nothing of it is changed. `kind` is the device whose chunks of logits
    are used. `sharded` computes as FSDP2 does: weights in the compute dtype, no autocast, and the gradient of a parameter for
    whose name begins with one of `layers` leaves as soon as it is there.

    Raises TraceError for a model whose forward depends on data, or with quantized weights.
    """
    if any(type(p).__name__ in QUANTIZED for p in policy.parameters()):
        raise TraceError("its quantized weights do not run without data")
    watch = _WatchedScorer if isinstance(policy, Scorer) else _WatchedPolicy
    watched: _Watched = watch(policy.model, paths=policy.paths, compute_dtype=policy.compute_dtype, aux_loss=policy.aux_loss)
    watched.train()
    try:
        with _tree_attention(watched), _ledger() as watched.ledger:
            watched.kind = kind
            return _run(watched, _tree(tokens, min(row, tokens)), sharded, layers)
    except (RuntimeError, NotImplementedError, TypeError) as error:  # fake tensors refuse by either
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise TraceError(f"it does not run without data ({first[:120]})") from error


def _run(policy: _Watched, tree: TokenTree, sharded: bool, layers: tuple[str, ...]) -> Held:
    dtype = policy.compute_dtype if sharded else None
    state = {name: _like(p, dtype) for name, p in policy.named_parameters()} | {name: _like(b) for name, b in policy.named_buffers()}
    for name, parameter in state.items():
        if not parameter.requires_grad:
            continue
        if not sharded:
            parameter.grad = torch.empty_like(parameter)
        elif name.startswith(layers):
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
    ledger = policy.ledger
    before = ledger.enter("layers")
    functional_call(policy, state, (tree,))
    return Held(saved=policy.saved - before, head=ledger.most["head"] - before, layers=ledger.most["layers"] - before)


def _like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    kept = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=kept, requires_grad=tensor.requires_grad)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


class _Parameters(nn.Module):
    """Parameters without data under a model's names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.of = {name: nn.Parameter(_like(p).detach(), p.requires_grad) for name, p in model.named_parameters()}

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(self.of.items())


def trace_optimizer(model: nn.Module, args: TrainConfig) -> tuple[int, int]:
    """Bytes of the optimizer's state, and the most that an update holds beside it. Raises ModelError, as `make_optimizer` does."""
    with _ledger(answer=1.0) as ledger:  # Adafactor asks for its step and for norms; no shape depends on them
        optimizer, _ = from_config(args, _Parameters(model), 1)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.empty_like(parameter)
        before = ledger.enter("first")
        optimizer.step()
        after = ledger.enter("update")
        optimizer.step()
        return after - before, ledger.most["update"] - after
