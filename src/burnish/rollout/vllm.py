"""Completions from a vLLM server: token ids out, token ids and log-probs back, and never from weights that are not the policy's.

The server is a process of its own, on this machine or another, reached over HTTP; vLLM is not imported. It must be started with

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --generation-config vllm --logprobs-mode processed_logprobs

(the first lets weights be loaded anew and so must not be reachable by strangers; tested with vLLM 0.32). Weights reach it by path:
the policy is written as a plain model's folder, which the server loads in place of what it has. Then a short text is scored by both
sides, and a server that disagrees is refused: see `VLLMSampler.update`.

Law *seed* does not hold: how a server batches is its own affair, its CPU engine dies of a request with a seed, and none is sent.
Law *two voices* holds up to the server's arithmetic: `exact` is False, and the trainer computes log-probs of its own.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from burnish.rollout.flights import ATTEMPTS, Flight, Flights
from burnish.rollout.sampler import Completion, Request, Sampling, SamplingError, Then
from burnish.rollout.server import FailedError, LostError, RefusedError, Server

PROBE = "The sun rises in the east and sets in the west. Water boils at one hundred degrees, and in winter the lake is covered with ice."
"""A text to score: natural, since log-probs of unlikely tokens are of little precision."""
TOKENS_AN_EVENT = 16
FLAGS = "start it with VLLM_SERVER_DEV_MODE=1, --generation-config vllm and --logprobs-mode processed_logprobs"

Publish = Callable[[Path], None]
"""Writes the policy's weights as they are now into a new folder, as `from_pretrained` reads a plain model."""
Rescore = Callable[[Sequence[tuple[np.ndarray, np.ndarray]]], Sequence[np.ndarray]]
"""(context, completion) as token ids → log-probs of the completion's tokens under the policy, at temperature 1 whatever is sampled at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """What was published, and how both sides score the probe with it."""

    version: int
    label: str
    """The server's name for them, which it forgets when it is started anew."""
    folder: Path
    wanted: np.ndarray
    seen: np.ndarray


class VLLMSampler:
    """Samples from a vLLM server that is kept at the policy's weights. See `burnish.rollout.sampler.Sampler`.

    Call `update` before the first `sample`. A server that hangs up, fails or is started again is waited for, for `timeout` seconds each
    time; it is then given the current weights again, checked, and asked again for what it had not finished. Every completion is of the
    version that it is stamped with: a restart cannot go unseen, because it ends every answer under way, and the server is checked
    whenever there was none.
    """

    exact = False

    def __init__(
        self,
        base_url: str,
        *,
        publish: Publish,
        rescore: Rescore,
        probe: Sequence[int],
        weights_dir: Path,
        model: str | None = None,
        timeout: float = 240.0,
        tolerance: float = 0.05,
        concurrency: int = 64,
        untied_head: bool = False,
    ) -> None:
        """
        Args:
            probe: token ids of a text such as `PROBE`, 8 or more.
            weights_dir: folder for published weights, which the server's machine sees under the same path.
            model: its name at the server; None: the only one that is served.
            timeout: seconds for the server to answer, to begin with, and then between two signs of life.
            tolerance: largest mean difference, in nats, between the server's log-probs of the probe and the trainer's. After the first
                update it is at most ten times the difference that was found then, and 1e-4: see `_agreed`.
            concurrency: contexts that are sampled from at a time.
            untied_head: the server was started from a folder of tools/untied_head.py. Its CPU engine needs that of a model whose head
                shares its embeddings: it would keep the first head, and be refused.
        """
        if len(probe) < 8:
            raise ValueError(f"The probe has {len(probe)} tokens; give 8 or more, such as those of burnish.rollout.vllm.PROBE.")
        self._server, self._name = Server(base_url), f"The vLLM server at {base_url}"
        self._publish, self._rescore = publish, rescore
        self._probe = np.asarray(probe, dtype=np.int32)
        self._weights_dir = weights_dir.resolve()
        self._model, self._timeout, self._tolerance, self._concurrency = model, timeout, tolerance, concurrency
        self._untied_head = untied_head
        self._held: _Weights | None = None
        self._sampling = False

    def update(self, version: int) -> None:
        """Publishes the policy's weights, has the server load them and checks that it did. `publish` and `rescore` are called once each,
        and not at all where `version` is the one that the server has.

        Raises SamplingError when the server
            does not answer within the timeout, or refuses;
            scores the probe otherwise than the trainer, by more than the tolerance on average;
            scores it as before, though the trainer does not: these are the weights of the version before;
            serves another model, or returns other log-probs than those of the distribution that it samples from.
        """
        if self._sampling:
            raise SamplingError(
                f"Version {version} cannot be loaded while completions are under way; read those to the end, or close them."
            )
        before, folder = self._held, self._weights_dir / f"version-{version}"
        if before is not None and before.version == version:
            return
        shutil.rmtree(folder, ignore_errors=True)
        self._publish(folder)
        if self._untied_head:
            add_head(folder)
        [wanted] = self._rescore([(self._probe[:1], self._probe[1:])])
        label = f"{uuid.uuid4().hex[:8]}-{version}"
        weights = _Weights(version=version, label=label, folder=folder, wanted=np.asarray(wanted, np.float64), seen=np.empty(0))
        self._held = self._patiently(lambda deadline: self._load(weights, before, deadline), f"to load version {version}")
        if before is not None:
            shutil.rmtree(before.folder, ignore_errors=True)

    def sample(self, requests: Sequence[Request], sampling: Sampling, then: Then | None = None) -> Iterator[Completion]:
        """As in `Sampler`. `logp` is what the server said where nothing is truncated or penalised, and otherwise NaN, because a server
        that says under which distribution it sampled cannot say the other; `sampled_logp` is always what it said.

        Raises SamplingError when the server is lost for longer than the timeout, or three times without a completion in between; when it
        refuses a request; and when a completion is not what was asked for.
        """
        if sampling.min_p > 0 and sampling.top_p < 1:
            raise SamplingError("vLLM applies min_p before top_p, and Burnish after it; give one of them.")
        return self._sample(requests, sampling, then)

    def _sample(self, requests: Sequence[Request], sampling: Sampling, then: Then | None) -> Iterator[Completion]:
        if self._held is None:
            raise SamplingError(f"{self._name} was given no weights yet; call update before sample.")
        if self._sampling:
            raise SamplingError("Completions of an earlier call are still under way; read those to the end, or close them.")
        call, version = Flights(self._name, groups(requests, greedy=sampling.temperature == 0), self._concurrency), self._held.version
        self._sampling = True
        try:
            while call.waiting or call.under_way:
                if not call.under_way:
                    self._patiently(self._ready, "to sample")
                    call.lost = ""
                while call.sends:
                    call.send(self._asked(call.waiting.popleft(), sampling))
                flight, event = call.next(self._timeout)
                if not isinstance(event, dict):
                    call.end(flight, event)
                    continue
                for completion in self._completions(flight, event, sampling, version):
                    more = None if then is None else then(completion)
                    call.waiting.extend([] if more is None else [[more]])
                    call.losses = 0
                    yield completion
        finally:
            call.close()
            self._sampling = False

    def _asked(self, requests: Sequence[Request], sampling: Sampling) -> Flight:
        """Every option is said, so that none comes from the server's defaults."""
        first, count = requests[0], len(requests)
        body = {
            "model": self._model,
            "prompt": first.token_ids.tolist(),
            "n": count,
            "max_tokens": first.max_tokens,
            "min_tokens": 0,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop": list(sampling.stop),
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,
            "skip_special_tokens": False,
            "logprobs": 0,
            "return_token_ids": True,
            "stream": True,
            "stream_interval": TOKENS_AN_EVENT,
        }
        flight = Flight(requests=requests, stream=self._server.stream("/v1/completions", body, seconds=self._timeout))
        flight.token_ids, flight.logp = [[] for _ in requests], [[] for _ in requests]
        return flight

    def _completions(self, flight: Flight, event: dict[str, Any], sampling: Sampling, version: int) -> Iterator[Completion]:
        for choice in event["choices"]:
            i, ids, logp = choice["index"], choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
            if ids is None or logp is None or len(ids) != len(logp):
                raise self._unlike(
                    f"{None if ids is None else len(ids)} token ids came with {None if logp is None else len(logp)} log-probs"
                )
            flight.token_ids[i] += ids
            flight.logp[i] += logp
            if choice.get("finish_reason") in ("stop", "length"):
                yield self._completion(flight, choice, sampling, version)
                flight.ended.add(i)

    def _completion(self, flight: Flight, choice: dict[str, Any], sampling: Sampling, version: int) -> Completion:
        i, reason, cause = choice["index"], choice["finish_reason"], choice.get("stop_reason")
        request, token_ids, logp = flight.requests[i], np.asarray(flight.token_ids[i], np.int32), np.asarray(flight.logp[i], np.float32)
        if reason == "stop" and cause not in (*sampling.stop_token_ids, *sampling.stop):
            raise self._unlike(f"a completion ended with {cause!r}, which was not among the stops")
        if not len(token_ids) or len(token_ids) > request.max_tokens or (reason == "length" and len(token_ids) < request.max_tokens):
            raise self._unlike(f"a completion of at most {request.max_tokens} tokens ended by its length after {len(token_ids)}")
        if not np.isfinite(logp).all() or (logp > 1e-3).any():
            raise self._unlike("a log-prob is not a finite number of at most 0")
        policy = np.full_like(logp, np.nan) if sampling.changed else logp
        return Completion(
            request=request, token_ids=token_ids, logp=policy, sampled_logp=logp, finish_reason=reason, policy_version=version
        )

    def _unlike(self, what: str) -> SamplingError:
        return SamplingError(f"{self._name} did not do what was asked: {what}; {FLAGS}.")

    # The server's weights

    def _patiently(self, ask: Callable[[float], Any], what: str) -> Any:
        """`ask(deadline)`, again as long as the server is lost. Raises SamplingError."""
        deadline, pause, failures = time.monotonic() + self._timeout, 0.05, 0
        while True:
            try:
                return ask(deadline)
            except RefusedError as error:
                raise SamplingError(f"{self._name} was asked {what} and refused ({error}); {FLAGS}.") from error
            except (KeyError, TypeError, ValueError) as error:
                raise SamplingError(f"{self._name} was asked {what} and does not answer as vLLM does ({error!r}).") from error
            except LostError as error:
                failures += isinstance(error, FailedError)
                if failures >= ATTEMPTS or time.monotonic() + pause >= deadline:
                    often = f"{failures} times" if failures >= ATTEMPTS else f"for {self._timeout:g} s"
                    raise SamplingError(f"{self._name} was asked {what} {often}, in vain ({error}); see its own messages.") from error
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _load(self, weights: _Weights, before: _Weights | None, deadline: float) -> _Weights:
        rpc = {"method": "reload_weights", "kwargs": {"weights_path": str(weights.folder)}, "timeout": left(deadline)}
        self._model = self._served(deadline)
        self._server.post("/collective_rpc", rpc, seconds=left(deadline))
        # what was computed of a prompt with the old weights is kept for the next one that begins alike
        if not self._server.post("/reset_prefix_cache", {}, seconds=left(deadline))["success"]:
            raise LostError("/reset_prefix_cache: it did not succeed")
        self._server.post("/update_weight_version", {"new_version": weights.label}, seconds=left(deadline))
        return self._agreed(weights, before, self._score(deadline))

    def _ready(self, deadline: float) -> None:
        """Nothing is under way, so that a restart would have gone unseen, or weights that someone else loaded."""
        held = self._held
        assert held is not None
        self._model = self._served(deadline)
        label, seen = self._server.get("/weight_info", seconds=left(deadline))["weight_version"], self._score(deadline)
        if label != held.label or np.abs(seen - held.seen).mean() > self._tolerance / 10:
            self._held = self._load(held, None, deadline)
            warnings.warn(f"{self._name} no longer had version {held.version}, as after a restart; it was given it again.", stacklevel=3)

    def _served(self, deadline: float) -> str:
        names = [one["id"] for one in self._server.get("/v1/models", seconds=left(deadline))["data"] if one.get("parent") is None]
        if self._model in names or (self._model is None and len(names) == 1):
            return self._model or names[0]
        raise SamplingError(f"{self._name} serves {', '.join(names)}, and not {self._model or 'a single model'}; start it with that model.")

    def _score(self, deadline: float) -> np.ndarray:
        """Log-probs of the probe, at temperature 1. One token is sampled of the most likely one alone, and so with certainty."""
        body = {"model": self._model, "prompt": self._probe.tolist(), "max_tokens": 1, "temperature": 1.0, "top_k": 1, "top_p": 1.0}
        body |= {"min_p": 0.0, "repetition_penalty": 1.0, "logprobs": 0, "prompt_logprobs": 0, "return_token_ids": True, "ignore_eos": True}
        [choice] = self._server.post("/v1/completions", body, seconds=left(deadline))["choices"]
        if choice["prompt_token_ids"] != self._probe.tolist():
            raise self._unlike("it read other token ids than it was given")
        if abs(certain := choice["logprobs"]["token_logprobs"][0]) > 1e-3:
            raise self._unlike(f"a token that was certain has a log-prob of {certain:.3g}, not of the distribution that is sampled from")
        said = zip(self._probe[1:].tolist(), choice["prompt_logprobs"][1:], strict=True)
        return np.array([ranked[str(token)]["logprob"] for token, ranked in said])

    def _agreed(self, weights: _Weights, before: _Weights | None, seen: np.ndarray) -> _Weights:
        """Raises SamplingError where the server's scores are not the policy's.

        How far the two differ when all is well depends on the server's dtype and is found at the first update: 1e-5 nats for float32,
        0.01 for bfloat16. What the later ones may differ by follows from it, so that weights which are stale in part show as well.
        """
        gap = float(np.abs(seen - weights.wanted).mean())
        of = f"{self._name} was given version {weights.version}" + (f" in place of version {before.version}" if before else "")
        if not gap <= self._tolerance:
            how = f"its log-probs of {len(seen)} tokens differ from the trainer's by {gap:.2g} on average, where {self._tolerance:.2g}"
            raise SamplingError(f"{of}, and does not sample from it: {how} is allowed.")
        if before is None:
            self._tolerance = min(self._tolerance, 10 * gap + 1e-4)
        else:
            moved, followed = float(np.abs(weights.wanted - before.wanted).mean()), float(np.abs(seen - before.seen).mean())
            if moved > self._tolerance / 100 and followed < moved / 10:
                how = f"the trainer's log-probs of {len(seen)} tokens moved by {moved:.2g} on average, and its own by {followed:.2g}"
                raise SamplingError(f"{of}, and still has the old weights: {how}, where a tenth of that is asked for.")
        return replace(weights, seen=seen)


def add_head(folder: Path) -> None:
    """Writes the output head of a published model beside it, in a file of its own, where it is the embeddings' and so not in the folder.

    A server that ties the two ignores it; one that was started from such a folder loads it.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {"weight_map": {}}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            found = {name.rpartition(".")[0].rpartition(".")[2]: name for name in weights.keys()}  # noqa: SIM118
            if "lm_head" in found:
                return
            if "embed_tokens" in found:
                save_file({"lm_head.weight": weights.get_tensor(found["embed_tokens"])}, folder / "lm_head.safetensors")
                names["weight_map"]["lm_head.weight"] = "lm_head.safetensors"
    if index.is_file():
        index.write_text(json.dumps(names), encoding="utf-8")


def groups(requests: Iterable[Request], *, greedy: bool) -> Iterator[list[Request]]:
    """Requests of the same context and length together, in the order of the first of each; the server takes no two greedy ones in one."""
    found: dict[tuple[Any, ...], list[Request]] = {}
    for i, one in enumerate(requests):
        found.setdefault((one.token_ids.tobytes(), one.max_tokens, i if greedy else 0), []).append(one)
    yield from found.values()


def left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)
