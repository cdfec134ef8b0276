"""The built-in sampler: completions from the policy's own weights, through the attention and the head that it is trained with.

A context is computed once for all its completions. Completions that end make room for others at once; what is held of keys and values
is bounded by `memory`: where rows come to need more than there is, those begun last wait, and go on later from where they were.

Each token belongs to a uniform number of its own (`rollout/uniforms.py`), so a completion is the same whatever else is sampled beside it,
but for the rounding of the logits, which depends on the shapes of the products: where a uniform falls within about 1e-6 of the edge
between two tokens (in float32), another batch may choose the other one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from burnish.config.sampling import SamplingConfig
from burnish.distributed.wrap import gathered
from burnish.models.decoding import OWN, Decoder, context_slot
from burnish.models.head import head_of
from burnish.models.memory import device_memory
from burnish.models.plain_decoding import PlainDecoder
from burnish.models.policy import Policy
from burnish.ops.logprobs import CHUNK_ELEMENTS, head_logits
from burnish.ops.sampling import Draw, draw
from burnish.rollout.lanes import dealt, in_lanes, lanes_of
from burnish.rollout.sampler import Completion, Request, Sampling, SamplingError, Then
from burnish.rollout.table import StopStrings, Table

SHARE = 0.1
"""Of the device's memory, for keys and values, where nothing else is said."""
MOST_ROWS = {"cpu": 256, "cuda": 1024}
"""Completions under way, above which a step is not more efficient, only longer."""
PREFILL = {"cpu": 2048, "cuda": 16384}
"""Tokens of contexts that are computed at once."""
TYPICAL = 128
"""Tokens of a completion, as long as none has ended."""
BURST = 16
"""Steps after which completions are handed out under autocast, where the weights are cast once for each time, and of several lanes."""


class LocalSampler:
    """A `Sampler` that shares the policy's weights: an adapter is live, nothing is copied or merged.

    `text` turns token ids into text, for stop strings. `memory` is in GiB, for keys and values; None: a tenth of the device's. The
    policy is in evaluation mode while it computes, and as it was whenever a completion is handed out. Under FSDP call `sample` on
    every rank, and exhaust it; each may have other requests, or none.
    """

    exact = True

    def __init__(self, policy: Policy, *, text: Callable[[Sequence[int]], str], memory: float | None = None) -> None:
        self.policy = policy
        self._text, self._memory = text, memory
        self._version = 0
        self._token_bytes = 0
        self.messages: tuple[str, ...] = (PLAIN.format(type(policy.causal_model).__name__),) * (policy.paths.attention != "tree")
        """What a user should know of how it samples."""

    def update(self, version: int) -> None:
        """The weights are the policy's own, so there is nothing to bring up to date but the number."""
        self._version = version

    def sample(self, requests: Sequence[Request], sampling: Sampling, then: Then | None = None) -> Iterator[Completion]:
        """See `Sampler`. Raises SamplingError for a request without context or room, and for logits that are not finite."""
        with gathered(self.policy):
            device = self.policy.device
            budget = self._memory * 2**30 if self._memory is not None else SHARE * device_memory(device)
            if not self._token_bytes or not requests:  # FSDP expects a backward of what came last forward, and it is the same on all ranks
                self._token_bytes = _token_bytes(self.policy, device)
            shares = dealt(requests, lanes_of(self.policy, requests, MOST_ROWS.get(device.type, 256)))
            runs = [_Run(self.policy, sampling, self._text, device, budget / len(shares), self._token_bytes, self._version) for _ in shares]
            for run, share in zip(runs, shares, strict=True):
                run.add(share)
            with in_lanes(len(runs)) as together:
                while busy := [run for run in runs if run.busy]:
                    with _evaluating(self.policy), _casts_kept(self.policy):
                        ended = together([partial(run.burst, len(runs) == 1) for run in busy])
                    for run, completions in zip(busy, ended, strict=True):
                        for completion in completions:
                            if then is not None and (following := then(completion)) is not None:
                                run.add([following])
                            yield completion


def sampling_of(config: SamplingConfig, stop_token_ids: Sequence[int], seed: int) -> Sampling:
    """What a configuration asks for, of a model that ends its turns with these tokens."""
    return Sampling(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p or 0.0,
        repetition_penalty=config.repetition_penalty,
        stop_token_ids=tuple(stop_token_ids),
        stop=tuple(config.stop or ()),
        seed=seed,
    )


PLAIN = "{} is sampled from through its own cache, one prompt at a time, because it does not run as a token tree; that costs time."


def decoder_of(policy: Policy, device: torch.device) -> Decoder | PlainDecoder:
    """The decoder that goes with how the policy is run."""
    if policy.paths.attention == "tree":
        return Decoder(lambda ids, positions: policy.backbone(ids, positions).last_hidden_state[0], device, policy.paths.backend)
    return PlainDecoder(policy.causal_model if policy.paths.head == "model" else policy.causal_model.base_model, device)


def _token_bytes(policy: Policy, device: torch.device) -> int:
    """Of one token's keys and values; 0 where that is not known.

    It is found out before the first rows are begun: which rows are computed together must not depend on what was sampled before, or a
    run that is continued would round otherwise than one that was never stopped.
    """
    if policy.paths.attention != "tree":
        return 0
    decoder = decoder_of(policy, device)
    with torch.no_grad(), _evaluating(policy), policy.autocast():
        decoder.add_contexts({0: np.zeros(1, dtype=np.int64)})
    return decoder.token_bytes


@dataclass(slots=True, eq=False)
class _Row:
    """A request that waits or is under way."""

    request: Request
    context: np.ndarray
    """The request's, and after it what was sampled before the row was interrupted."""
    name: int
    """Of the context."""
    sampled: tuple[np.ndarray, ...] = field(default=())
    """Tokens and log-probs from before it was interrupted."""


class _Run:
    """One call of `sample`."""

    def __init__(
        self,
        policy: Policy,
        sampling: Sampling,
        text: Callable[[Sequence[int]], str],
        device: torch.device,
        budget: float,
        token_bytes: int,
        version: int,
    ) -> None:
        self._policy, self._sampling, self._device = policy, sampling, device
        self._budget, self._known_bytes, self._version = budget, token_bytes, version
        self.decoder = decoder_of(policy, device)
        self._stops = np.array(sampling.stop_token_ids, dtype=np.int64)
        self._texts = StopStrings(sampling.stop, text) if sampling.stop else None
        self._waiting: deque[_Row] = deque()
        self._rows: dict[int, _Row] = {}
        """By seat, those begun last at the end."""
        self._names: dict[bytes, int] = {}
        self._next_name = count()
        self._users: Counter[int] = Counter()
        """Rows that wait or are under way, by context."""
        self._last: dict[int, Tensor] = {}
        """Of each context that is computed: what the decoder gave of its last token."""
        self._table = Table(sampling.changed)
        self._seen: Tensor | None = None
        self._ended_tokens, self._ended = 0, 0

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._rows)

    def add(self, requests: Sequence[Request]) -> None:
        """Requests join the end of the queue."""
        for request in requests:
            if request.max_tokens < 1 or not len(request.token_ids):
                what = "no context" if request.max_tokens >= 1 else f"max_tokens={request.max_tokens}"
                raise SamplingError(f"The request for sample {request.sample} of {request.prompt_id} has {what}; give at least one token.")
            self._waiting.append(self._row(request, np.asarray(request.token_ids, dtype=np.int64)))

    def burst(self, alone: bool) -> list[Completion]:
        """Steps until completions have ended; beside other lanes, which wait for each other, a fixed number."""
        ended: list[Completion] = []
        with torch.no_grad(), self._policy.autocast():
            steps = 1 if alone and not torch.is_autocast_enabled(self._device.type) else BURST
            while self.busy and ((alone and not ended) or steps > 0):
                ended += self._begin()
                if self._rows:
                    ended += self._step()
                steps -= 1
        return ended

    # Who is under way

    def _row(self, request: Request, context: np.ndarray, sampled: tuple[np.ndarray, ...] = ()) -> _Row:
        name = self._names.setdefault(context.tobytes(), next(self._next_name))
        self._users[name] += 1
        return _Row(request=request, context=context, name=name, sampled=sampled)

    def _begin(self) -> list[Completion]:
        """Takes rows from the queue, computes their contexts and draws their first tokens."""
        rows = self._admitted()
        if not rows:
            return []
        fresh = {row.name: row.context for row in rows if row.name not in self._last}
        most, part = PREFILL.get(self._device.type, 4096), dict[int, np.ndarray]()
        for i, (name, ids) in enumerate(fresh.items()):
            part[name] = ids
            following = list(fresh.values())[i + 1 : i + 2]
            if not following or sum(map(len, part.values())) + len(following[0]) > most:
                self._last |= dict(zip(part, self.decoder.add_contexts(part), strict=True))
                part = {}
        seats = [self._table.open(self._sampling.seed, row.request, row.sampled) for row in rows]
        self._rows |= dict(zip(seats, rows, strict=True))
        self._note_contexts(seats)
        ended = self._draw(torch.stack([self._last[row.name] for row in rows]), seats)
        self.decoder.add_rows({seat: self._rows[seat].name for seat in seats if seat in self._rows})
        return ended

    def _admitted(self) -> list[_Row]:
        plain = isinstance(self.decoder, PlainDecoder)
        if not self._waiting or (plain and self._rows):
            return []
        most = MOST_ROWS.get(self._device.type, 256) - len(self._rows)
        room, rows = self._room(), list[_Row]()
        held = set(self._last)
        for row in self._waiting:
            alone = not self._rows and not rows
            one_context = plain or not (self.decoder.token_bytes or self._known_bytes)
            need = self._expected(row) + (0 if row.name in held else context_slot(len(row.context)))
            if not alone and (len(rows) >= most or need > room or (one_context and row.name != rows[0].name)):
                break
            held.add(row.name)
            room -= need
            rows.append(row)
        computed = all(row.name in self._last for row in rows)
        if not computed and len(rows) < min(len(self._waiting), len(self._rows) // 16):
            return []  # contexts are computed a few at a time
        for _ in rows:
            self._waiting.popleft()
        return rows

    def _expected(self, row: _Row) -> int:
        """Tokens of the slot that a row may come to."""
        typical = self._ended_tokens // self._ended if self._ended else TYPICAL
        slot, most = OWN, min(row.request.max_tokens, max(typical, OWN))
        while slot < most:
            slot *= 2
        return slot

    def _room(self) -> float:
        """Tokens for whose keys and values there is room beside what rows under way have, or are expected to come to."""
        size = self.decoder.token_bytes or self._known_bytes
        if not size:
            return float("inf")
        contexts = sum(context_slot(len(ids)) for ids in {row.name: row.context for row in self._rows.values()}.values())
        expected = contexts + sum(map(self._expected, self._rows.values()))
        return self._budget / size - max(self.decoder.room, expected)

    def _interrupt(self) -> None:
        """Rows begun last go back to the queue, until the next step has room."""
        size = self.decoder.token_bytes
        while self.decoder.room * size > self._budget:
            if len(self._rows) == 1:
                (row,) = self._rows.values()
                raise SamplingError(
                    f"{self._budget / 2**30:.3g} GiB do not hold the keys and values of one completion of {row.request.prompt_id}; "
                    "raise sampler_memory, or lower max_completion_length."
                )
            seat, row = self._rows.popitem()
            self.decoder.drop_rows([seat])
            sampled = self._table.close(seat)
            context = np.concatenate([np.asarray(row.request.token_ids, dtype=np.int64), sampled[0]])
            self._waiting.appendleft(self._row(row.request, context, sampled))
            self._leave([row])

    def _leave(self, rows: Sequence[_Row]) -> None:
        """Contexts that no row needs any more are given up."""
        self._users.subtract(row.name for row in rows)
        done = {row.name for row in rows if not self._users[row.name]}
        for name in done:
            del self._users[name]
        held = [name for name in done if self._last.pop(name, None) is not None]
        if held:
            self.decoder.drop_contexts(held)
        for row in rows:
            if row.name in done:
                self._names.pop(row.context.tobytes(), None)

    # One token of each row

    def _step(self) -> list[Completion]:
        self._interrupt()
        self.decoder.make_room()
        seats = self.decoder.order
        tokens = torch.from_numpy(self._table.last_tokens(seats)).to(self._device)
        return self._draw(self.decoder.step(tokens), seats, under_way=True)

    def _draw(self, out: Tensor, seats: Sequence[int], *, under_way: bool = False) -> list[Completion]:
        """The next token of each seat. `out` is what the decoder gave of the last one."""
        table = self._table
        uniform = torch.from_numpy(table.uniforms(seats)).to(self._device)
        seen = None if self._seen is None else self._seen[torch.tensor(seats, device=self._device)]
        draws, rows = [], max(1, CHUNK_ELEMENTS.get(self._device.type, 2**26) // self._vocabulary)
        for i in range(0, len(seats), rows):
            part = slice(i, i + rows)
            draws.append(draw(self._logits(out[part]), uniform[part], self._sampling, None if seen is None else seen[part]))
        token, logp, sampled = _on_cpu(draws)
        if not np.isfinite(logp).all():
            row = self._rows[seats[int(np.argmin(np.isfinite(logp)))]]
            raise SamplingError(
                f"The logits for {row.request.prompt_id} are not finite; the weights hold a NaN, or overflow in this dtype."
            )
        table.append(seats, token, logp, sampled)
        if self._seen is not None:
            self._seen[torch.tensor(seats), torch.from_numpy(token)] = True
        return self._end(table.ended(seats, token, self._stops, self._texts), under_way)

    def _logits(self, out: Tensor) -> Tensor:
        if self._policy.paths.head == "model":
            return out.to(torch.promote_types(out.dtype, torch.float32), copy=True)
        return head_logits(head_of(self._policy.causal_model, out))

    @property
    def _vocabulary(self) -> int:
        return int(self._policy.causal_model.get_output_embeddings().weight.shape[0])

    def _end(self, ended: dict[int, bool], under_way: bool) -> list[Completion]:
        """`ended`: by seat, whether it was stopped (and not cut off)."""
        if ended and under_way:
            self.decoder.drop_rows(list(ended))
        rows = {seat: self._rows.pop(seat) for seat in ended}
        completions = []
        for seat, row in rows.items():
            token, logp, sampled = self._table.close(seat)
            self._ended, self._ended_tokens = self._ended + 1, self._ended_tokens + len(token)
            completions.append(
                Completion(
                    request=row.request,
                    token_ids=token.astype(np.int32),
                    logp=logp,
                    sampled_logp=sampled if self._sampling.changed else None,
                    finish_reason="stop" if ended[seat] else "length",
                    policy_version=self._version,
                )
            )
        self._leave(list(rows.values()))
        return completions

    def _note_contexts(self, seats: Sequence[int]) -> None:
        """For the repetition penalty: which tokens each row has seen."""
        if self._sampling.repetition_penalty == 1:
            return
        if self._seen is None or len(self._seen) < self._table.seats:
            larger = torch.zeros(self._table.seats, self._vocabulary, dtype=torch.bool, device=self._device)
            if self._seen is not None:
                larger[: len(self._seen)] = self._seen
            self._seen = larger
        for seat in seats:
            self._seen[seat] = False
            self._seen[seat, torch.from_numpy(self._rows[seat].context).to(self._device)] = True


def _on_cpu(draws: Sequence[Draw]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    token = torch.cat([one.token_R for one in draws]).cpu().numpy()
    logp = torch.cat([one.logp_R for one in draws]).float().cpu().numpy()
    changed = [one.sampled_logp_R for one in draws if one.sampled_logp_R is not None]
    return token, logp, torch.cat(changed).float().cpu().numpy() if changed else None


@contextmanager
def _evaluating(policy: Policy) -> Iterator[None]:
    was_training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(was_training)


@contextmanager
def _casts_kept(policy: Policy) -> Iterator[None]:
    """Autocast keeps its casts of weights that ask for a gradient, and would make those of frozen ones anew at every step."""
    frozen = [one for one in policy.parameters() if not one.requires_grad and one.is_floating_point()]
    with policy.autocast():
        frozen = frozen if torch.is_autocast_enabled(policy.device.type) else []
    for one in frozen:
        one.requires_grad_(True)
    try:
        yield
    finally:
        for one in frozen:
            one.requires_grad_(False)
