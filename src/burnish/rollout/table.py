"""What the built-in sampler knows of rows under way, in arrays by seat; and whether their text has come to an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from burnish.rollout.sampler import Request
from burnish.rollout.uniforms import row_key, uniforms


class StopStrings:
    """Finds texts at the end of what was sampled."""

    def __init__(self, stops: Sequence[str], text: Callable[[Sequence[int]], str]) -> None:
        self._stops, self._text = tuple(stops), text
        # no token is shorter than a byte; a few more, as some tokenizers change the first token of a text
        self._tail = max(len(stop.encode()) for stop in stops) + 4

    def __call__(self, token_ids: np.ndarray) -> bool:
        """Whether one of them is complete; it is not looked for where it would have been found before."""
        text = self._text(token_ids[-self._tail :].tolist())
        return any(stop in text for stop in self._stops)


class Table:
    """Tokens and log-probs of each seat. `sampled` says whether there are two log-probs."""

    def __init__(self, sampled: bool) -> None:
        self.seats = 0
        self._sampled = sampled
        self._free: list[int] = []
        self._key_S: np.ndarray = np.zeros(0, dtype=np.uint64)
        self._first_S: np.ndarray = np.zeros(0, dtype=np.int64)
        self._count_S, self._limit_S = self._first_S.copy(), self._first_S.copy()
        self._token_SL: np.ndarray = np.zeros((0, 0), dtype=np.int64)
        self._logp_SL: np.ndarray = np.zeros((0, 0), dtype=np.float32)
        self._sampled_SL = self._logp_SL.copy()

    def open(self, seed: int, request: Request, before: tuple[np.ndarray, ...] = ()) -> int:
        """A seat, for a request of which `before` (as `close` gave it) is sampled already."""
        if not self._free:
            self._grow(max(8, 2 * self.seats), self._token_SL.shape[1])
        seat = self._free.pop()
        count = len(before[0]) if before else 0
        self._grow(self.seats, count + 1)
        key = row_key(seed, request.prompt_id, request.sample)
        self._key_S[seat], self._first_S[seat], self._limit_S[seat], self._count_S[seat] = key, request.first, request.max_tokens, count
        for kept, one in zip((self._token_SL, self._logp_SL, self._sampled_SL), before, strict=False):
            kept[seat, :count] = one
        return seat

    def close(self, seat: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gives up the seat. → (token ids, their log-probs under the policy, those under what they were drawn from, if kept)."""
        count = self._count_S[seat]
        self._free.append(seat)
        return self._token_SL[seat, :count].copy(), self._logp_SL[seat, :count].copy(), self._sampled_SL[seat, :count].copy()

    def last_tokens(self, seats: Sequence[int]) -> np.ndarray:
        return self._token_SL[seats, self._count_S[seats] - 1]

    def uniforms(self, seats: Sequence[int]) -> np.ndarray:
        """Of each seat's next token."""
        return uniforms(self._key_S[seats], self._first_S[seats] + self._count_S[seats])

    def append(self, seats: Sequence[int], token: np.ndarray, logp: np.ndarray, sampled: np.ndarray | None) -> None:
        at = self._count_S[seats]
        self._grow(self.seats, int(at.max()) + 1)
        self._token_SL[seats, at], self._logp_SL[seats, at] = token, logp
        if sampled is not None:
            self._sampled_SL[seats, at] = sampled
        self._count_S[seats] += 1

    def ended(self, seats: Sequence[int], token: np.ndarray, stops: np.ndarray, texts: StopStrings | None) -> dict[int, bool]:
        """The seats that have come to an end, and whether that is a stop (and not the limit)."""
        stopped = np.isin(token, stops)
        if texts is not None:
            stopped |= [texts(self._token_SL[seat, : self._count_S[seat]]) for seat in seats]
        over = stopped | (self._count_S[seats] >= self._limit_S[seats])
        return {seats[i]: bool(stopped[i]) for i in np.flatnonzero(over).tolist()}

    def _grow(self, seats: int, length: int) -> None:
        have = self._token_SL.shape
        if seats <= have[0] and length <= have[1]:
            return
        length = have[1] if length <= have[1] else max(64, length, 2 * have[1])
        more = (0, seats - have[0])
        self._key_S, self._first_S, self._count_S, self._limit_S = (
            np.pad(one, more) for one in (self._key_S, self._first_S, self._count_S, self._limit_S)
        )
        self._token_SL, self._logp_SL, self._sampled_SL = (
            np.pad(one, (more, (0, length - have[1]))) for one in (self._token_SL, self._logp_SL, self._sampled_SL)
        )
        self._free += range(have[0], seats)
        self.seats = seats
