"""What became of every row that was prepared. Nothing is dropped or cut without being counted here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {
    "dropped_too_long": "longer than {limit}, dropped",
    "cut": "longer than {limit}, cut ({mode}), {tokens_cut:,} tokens lost",
    "dropped_prompt_too_long": "with a prompt of {limit} or more, dropped",
    "dropped_empty": "empty, or with an empty completion, dropped",
    "dropped_equal": "with chosen equal to rejected, dropped",
    "dropped_tied": "in which no completion has a better score than another, dropped",
    "dropped_nothing_trained": "with no trained token, dropped",
    "swapped": "whose scores say that the rejected completion is the better one, the two swapped",
    "missing_eos": "without EOS among their trained tokens, from which the model does not learn to stop",
    "departures": "with turns that the template rewrites later ({departed_turns:,} in all), thinking taken out, say: when the model spoke, "
    "it was given another text than it is trained on",
    "duplicate_bos": "beginning with two BOS tokens; the tokenizer and the data may write one each",
    "straddled": "in which prompt and completion, written as one text, would share a token (here each has its own)",
}
"""What a row can be counted as; the words after the number in `str(report)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """How many rows of each kind there were."""

    dropped_too_long: int = 0
    dropped_prompt_too_long: int = 0
    """Of preferences: rows whose prompt leaves no room for a completion."""
    dropped_empty: int = 0
    dropped_equal: int = 0
    """Pairs whose two completions have the same tokens, after the cut where they were cut."""
    dropped_tied: int = 0
    dropped_nothing_trained: int = 0
    swapped: int = 0
    """Pairs whose `score_rejected` is above their `score_chosen`."""
    cut: int = 0
    tokens_cut: int = 0
    missing_eos: int = 0
    """Rows kept in which no trained token is the tokenizer's EOS; of preferences, in which a completion is without."""
    departures: int = 0
    """Rows with turns rendered otherwise than the generation prompt begins them; not looked for where every token is trained."""
    departed_turns: int = 0
    duplicate_bos: int = 0
    """Rows that begin with the token that is both BOS and EOS, twice; two of another BOS are an error."""
    straddled: int = 0
    straddled_of: int = 0
    """How many rows were looked at for `straddled`; for text, only the first thousand."""
    desirable: int = 0
    undesirable: int = 0
    """Completions kept that have the label true, and false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareReport(RowCounts):
    """The account of a preparation; `str()` is one paragraph.

    Example: ``20 rows (messages): 19 kept with 4,180 tokens, 1,900 trained (45.5%); lengths 31 to 1,310, median 201.
    1 row longer than max_length=1024, dropped (first: train.jsonl line 4).``
    """

    rows: int
    kept: int
    tokens: int
    """Of the rows kept, prompts included."""
    trained_tokens: int
    shortest: int = 0
    median: int = 0
    longest: int = 0
    """Lengths in tokens of all rows, before any was cut or dropped; of several branches, the longest with its prompt."""
    max_length: int | None = None
    truncation_mode: str = "drop"
    format: str = ""
    unused_columns: tuple[str, ...] = ()
    first: Mapping[str, str] = field(default_factory=dict)
    """The first row of each kind that occurred, such as ``{"cut": "train.jsonl line 4"}``."""

    def __str__(self) -> str:
        share = self.trained_tokens / max(1, self.tokens)
        lines = [
            f"{self.rows:,} rows ({self.format}): {self.kept:,} kept with {self.tokens:,} tokens, {self.trained_tokens:,} trained"
            f" ({share:.1%}); lengths {self.shortest:,} to {self.longest:,}, median {self.median:,}."
        ]
        for kind in KINDS:
            if said := self._said(kind):
                of = f" of {self.straddled_of:,}" if kind == "straddled" else ""
                count, words = said
                lines.append(f"{count:,}{of} row{'s' if count > 1 else ''} {words} (first: {self.first[kind]}).")
        if self.desirable or self.undesirable:
            lines.append(self._balance())
        if self.unused_columns:
            lines.append(f"Columns not read: {', '.join(self.unused_columns)}.")
        return " ".join(lines)

    @property
    def dropped(self) -> str:
        """How many rows were dropped, and why."""
        found = [(self._said(kind), self.first.get(kind)) for kind in KINDS if kind.startswith("dropped_")]
        return "; ".join(f"{said[0]:,} {said[1].removesuffix(', dropped')} (first: {first})" for said, first in found if said)

    def _said(self, kind: str) -> tuple[int, str] | None:
        """(rows of that kind, what is said of them); None where there are none."""
        counts = asdict(self)
        said = KINDS[kind].format(**counts | {"limit": f"max_length={self.max_length}", "mode": self.truncation_mode})
        return (counts[kind], said) if counts[kind] else None

    def _balance(self) -> str:
        """Labels, and the weights that would balance them (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8)."""
        if not (self.desirable and self.undesirable):
            one, other = ("true", "false") if self.desirable else ("false", "true")
            return f"All {self.desirable + self.undesirable:,} labels are {one}: KTO needs completions with the label {other} too."
        said = f"{self.desirable:,} completions with the label true, {self.undesirable:,} false"
        ratio = self.desirable / self.undesirable
        if 1 <= ratio <= 4 / 3:
            return f"{said}."
        return (
            f"{said}; to balance them, desirable_weight in [{1 / ratio:.3g}, {4 / 3 / ratio:.3g}] "
            f"or undesirable_weight in [{0.75 * ratio:.3g}, {ratio:.3g}]."
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"first": dict(self.first)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PrepareReport:
        return cls(**{**data, "unused_columns": tuple(data["unused_columns"])})


@dataclass(slots=True)
class Tally:
    """Counts under way. Rows are numbers here; a worker process knows no file names."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)

    def add(self, kind: str, row: int) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, row)

    def merge(self, later: Tally) -> None:
        self.counts += later.counts
        self.lengths += later.lengths
        for kind, row in later.first.items():
            self.first.setdefault(kind, row)

    def report(
        self,
        where: Callable[[int], str],
        *,
        max_length: int | None = None,
        truncation_mode: str = "drop",
        format: str = "",
        unused_columns: Sequence[str] = (),
    ) -> PrepareReport:
        ordered = sorted(self.lengths)
        return PrepareReport(
            rows=self.counts["rows"],
            shortest=ordered[0] if ordered else 0,
            median=self._median(ordered),
            longest=ordered[-1] if ordered else 0,
            max_length=max_length,
            truncation_mode=truncation_mode,
            format=format,
            unused_columns=tuple(unused_columns),
            first={kind: where(row) for kind, row in self.first.items()},
            kept=self.counts["kept"],
            tokens=self.counts["tokens"],
            trained_tokens=self.counts["trained_tokens"],
            tokens_cut=self.counts["tokens_cut"],
            straddled_of=self.counts["straddled_of"],
            departed_turns=self.counts["departed_turns"],
            desirable=self.counts["desirable"],
            undesirable=self.counts["undesirable"],
            **{kind: self.counts[kind] for kind in KINDS},
        )

    def _median(self, ordered: Sequence[int]) -> int:
        """The lower median."""
        left = (self.lengths.total() + 1) // 2
        for length in ordered:
            left -= self.lengths[length]
            if left <= 0:
                return length
        return 0
