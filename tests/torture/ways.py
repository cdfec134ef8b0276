"""Ways of training, what is tried on each in the long form, and the table of what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random
from typing import Any

from tests.tiny import chats, preferences, save_tiny_model, texts, write_rows
from tests.torture.faults import (
    DAMAGES,
    FILES,
    Subject,
    Trial,
    damaged_cache,
    damaged_checkpoint,
    damaged_events,
    damaged_metrics,
    full_disk,
    kills,
    no_room,
    sigterm,
    twice,
)
from tests.torture.process import ANY, OF_SOME, PHASES
from tests.torture.runs import SUPERVISOR

BACKGROUND = ("save", "publish", "rotate")
STORED = ("tokens", "segment_trained", "manifest.json")
"""Files of tokenised rows, those that are damaged."""
SHORT = "--batch_size 4 --learning_rate 0.1 --compute_dtype float32 --logging_steps 3"
COMMON = f"{SHORT} --assistant_only_loss"
"""The best model is not the last one, and meters are carried over checkpoints."""
OFTEN = "--save_steps 2 --save_total_limit 2"
SAMPLED = "--num_generations 3 --max_completion_length 4 --num_iterations 2 --steps_per_generation 2 --dynamic_sampling"
"""A sampling is for four steps, two of which are of an older policy."""
REWARD = """
def right(sample):
    return float(sample.completion_ids[0] % 2)
"""
HELD_OUT = "--test_split_size 8 --eval_strategy steps --eval_steps 5 --load_best_model_at_end"
Attempt = Callable[[Subject, Random], Iterator[Trial]]


@dataclass(frozen=True, kw_only=True)
class Way:
    flags: str
    ranks: int = 1
    command: str = "sft"


def ways(folder: Path) -> dict[str, Way]:
    """By name. Writes the model and the rows."""
    model = save_tiny_model(folder / "model", attention_dropout=0.1)
    rows, others = write_rows(folder / "rows.jsonl", chats(40)), write_rows(folder / "others.jsonl", chats(30, seed=1))
    mixture = folder / "mixture.yaml"
    mixture.write_text(f"datasets:\n  - path: {rows}\n    weight: 3\n  - path: {others}\n    weight: 1\n")
    one = f"--model_name_or_path {model} --dataset_name {rows} {COMMON}"
    mixed = f"--model_name_or_path {model} --config {mixture} {COMMON} {OFTEN} --max_steps 12"
    plain = f"{one} {OFTEN} {HELD_OUT} --max_steps 12"
    pairs = write_rows(folder / "pairs.jsonl", preferences(100))
    preferred = f"--model_name_or_path {model} --dataset_name {pairs} {SHORT} {OFTEN} {HELD_OUT} --max_steps 12"
    prompts, reward = write_rows(folder / "prompts.jsonl", [{"prompt": row["text"]} for row in texts(60)]), folder / "reward.py"
    reward.write_text(REWARD)
    answered = f"--model_name_or_path {model} --dataset_name {prompts} --reward_funcs {reward}:right --reward_workers 1"
    return {
        "all weights": Way(flags=plain),
        "LoRA": Way(flags=f"{plain} --use_peft --lora_r 4"),
        "in the background": Way(flags=f"{plain} --save_async"),
        "mixture": Way(flags=mixed),
        "streamed mixture": Way(flags=f"{mixed} --dataset_streaming"),
        "by the epoch": Way(flags=f"{one} --save_strategy epoch --eval_strategy epoch --load_best_model_at_end --test_split_size 8"),
        "every step": Way(flags=f"{one} --save_steps 1 --save_total_limit 1 --max_steps 8"),
        "a reference on disk": Way(flags=f"{preferred} --precompute_ref_log_probs", command="dpo"),
        "a reference that follows": Way(flags=f"{preferred} --sync_ref_model --ref_model_sync_steps 3", command="dpo"),
        "rollouts": Way(flags=f"{answered} {SHORT} {SAMPLED} {OFTEN} {HELD_OUT} --max_steps 12", command="grpo"),
        "two copies": Way(flags=plain, ranks=2),
        "two copies, a reference on disk": Way(flags=f"{preferred} --precompute_ref_log_probs", ranks=2, command="dpo"),
        "two copies, in the background": Way(flags=f"{plain} --save_async", ranks=2),
        "two shards": Way(flags=f"{plain} --fsdp full_shard", ranks=2),
        "two shards, in the background": Way(flags=f"{plain} --fsdp full_shard --save_async", ranks=2),
    }


def subject_of(context: ForkServerContext, way: Way, folder: Path) -> Subject:
    return Subject(context, [way.command, *way.flags.split()], folder, way.ranks)


def shared_out(subject: Subject, draw: Random, count: int) -> Iterator[Trial]:
    """So many kills over all phases that this way has, and over its ranks and their supervisor."""
    moments = [(phase, rank) for rank in range(subject.ranks) for phase in subject.phases(rank)]
    draw.shuffle(moments)
    supervisor = [(ANY, SUPERVISOR)] * 2 if subject.ranks > 1 else []
    return kills(subject, draw, [*supervisor, *islice(cycle(moments), count - len(supervisor))])


def attempts(name: str, one: int, two: int) -> list[Attempt]:
    """On a way: so many kills of one process or of two, and on some all other faults."""
    tried: list[Attempt] = [partial(shared_out, count=two if name.startswith("two") else one)]
    if name == "all weights":
        tried += [partial(sigterm, phase=phase) for phase in (*PHASES, ANY) if phase not in OF_SOME]
        tried += [
            partial(no_room, kind=kind, phase=phase) for kind in ("disk full", "read-only") for phase in PHASES if phase not in OF_SOME
        ]
        tried += [full_disk] * 5
    elif name == "mixture":
        tried += [partial(damaged_checkpoint, damage=damage, file=file) for damage in DAMAGES for file in FILES]
        tried += [partial(damaged_cache, damage=damage, file=file) for damage in DAMAGES for file in STORED]
        tried += [partial(damaged_metrics, damage=damage) for damage in DAMAGES for _ in range(2)]
        tried += [partial(damaged_events, damage=damage) for damage in DAMAGES]
    elif name == "every step":
        tried.append(partial(kills, moments=[(phase, 0) for phase in (*PHASES, ANY) if phase not in ("evaluate", *OF_SOME)], clock=True))
    elif name == "in the background":
        tried += [
            partial(twice, phase=phase) for phase in ("first step", "train", "evaluate", "save", "publish", "rotate", "find", "export")
        ]
        tried += [partial(sigterm, phase=phase) for phase in BACKGROUND]
        tried += [partial(no_room, kind=kind, phase=phase) for kind in ("disk full", "read-only") for phase in BACKGROUND]
    elif name == "two shards":
        tried += [partial(sigterm, phase=phase, rank=rank) for rank in (0, 1) for phase in ("train", "save")]
        tried += [partial(no_room, kind="disk full", phase="save", rank=rank) for rank in (0, 1)]
        tried += [partial(no_room, kind="read-only", phase="save", rank=0), partial(twice, phase="train")]
    return tried


def run_attempts(subject: Subject, tried: Sequence[Attempt], seed: int) -> Iterator[Trial]:
    """Goes on with the next one where something is lost or wrong."""
    for number, attempt in enumerate(tried):
        try:
            yield from attempt(subject, draw=Random(1000 * seed + number))  # type: ignore[call-arg]
        except AssertionError as wrong:
            said = attempt.keywords if isinstance(attempt, partial) else {}
            what = " ".join(str(value) for name, value in said.items() if name in ("kind", "damage", "phase", "file", "rank", "count"))
            function = attempt.func if isinstance(attempt, partial) else attempt
            yield Trial(fault=function.__name__, phase=what, ranks=subject.ranks, wrong=str(wrong))


COLUMNS = ("moments", "refused in a sentence", "resumed", "begun anew", "lost or wrong")


def table(trials: Sequence[Trial], names: Sequence[str]) -> Iterator[str]:
    """In Markdown: a line for each fault, or for each fault and phase, as `names` say."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for trial in trials:
        counts.setdefault(tuple(asdict(trial)[name] for name in names), Counter()).update(_counted(trial))
    yield f"| {' | '.join((*names, *COLUMNS))} |"
    yield f"|{'---|' * len(names)}{'--:|' * len(COLUMNS)}"
    for row, count in sorted(counts.items(), key=lambda one: _order(one[0])):
        yield f"| {' | '.join((*row, *(str(count[name]) for name in COLUMNS)))} |"


def totals(trials: Sequence[Trial]) -> str:
    count = sum((_counted(trial) for trial in trials), Counter[str]())
    killed = sum(trial.fault.startswith("kill -9") for trial in trials)
    return f"{killed} kills, {count['moments'] - killed} other faults; lost or wrong: {count['lost or wrong']}"


def _counted(trial: Trial) -> Counter[str]:
    if trial.wrong:
        return Counter({"moments": 1, "lost or wrong": 1})
    return Counter({"moments": 1, "refused in a sentence": int(trial.refused), "resumed" if trial.resumed else "begun anew": 1})


def _order(row: tuple[str, ...]) -> tuple[Any, ...]:
    """Kills first, and phases as they follow each other."""
    phases = [*PHASES, ANY]
    places = [phases.index(phase) if (phase := word.partition(",")[0]) in phases else len(phases) for word in row[1:]]
    return not row[0].startswith("kill"), row[0], places, row[1:]
