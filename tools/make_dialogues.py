"""Make chat rows from the English dialogues of the `chatterbot-corpus` package (BSD).

    python tools/make_dialogues.py models/dialogues

writes `train.jsonl` and `test.jsonl`, each row ``{"messages": [{"role": "user", ...}, {"role": "assistant", ...}, ...]}``.

Many dialogues open with the same question and differ in the answer, so questions are split, not dialogues: no question is
in both files, and a training dialogue that repeats any held-out exchange is left out and counted. Everything that is left
out is counted in the last line.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import yaml
from registry import fetch_wheel

PACKAGE = "chatterbot-corpus==1.3.3"
FOLDER = "chatterbot_corpus/data/english/"
SEED, HELD_OUT = 0, 0.1

Exchange = tuple[str, str]


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: make_dialogues.py OUTPUT_DIR")
    output = Path(sys.argv[1])
    if (output / "test.jsonl").is_file():
        print(f"{output} is already made")
        return
    with tempfile.TemporaryDirectory() as scratch:
        wheel = fetch_wheel(PACKAGE, Path(scratch))
        left_out: Counter[str] = Counter()
        dialogues = read(wheel, left_out)
    train, test = split(dialogues, left_out)
    output.mkdir(parents=True, exist_ok=True)
    # The file whose presence says that both are made is written last.
    for name, rows in (("train", train), ("test", test)):
        lines = [json.dumps({"messages": messages(turns)}, ensure_ascii=False) + "\n" for turns in rows]
        (output / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    print(f"{output}: {len(train):,} dialogues to train on, {len(test):,} held out; left out: {reasons}")


def read(wheel: Path, left_out: Counter[str]) -> list[tuple[str, ...]]:
    dialogues: dict[tuple[str, ...], None] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if n.startswith(FOLDER) and n.endswith(".yml")):
            for turns in yaml.safe_load(archive.read(name))["conversations"]:
                if not all(isinstance(turn, str) and turn.strip() for turn in turns):
                    left_out["with a turn that is not text"] += 1
                    continue
                answered = tuple(turn.strip() for turn in turns[: len(turns) // 2 * 2])
                if not answered:
                    left_out["without an answer"] += 1
                elif answered in dialogues:
                    left_out["said before"] += 1
                else:
                    dialogues[answered] = None
    return list(dialogues)


def split(dialogues: list[tuple[str, ...]], left_out: Counter[str]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    questions = sorted({plain(turns[0]) for turns in dialogues})
    held_out = set(random.Random(SEED).sample(questions, round(HELD_OUT * len(questions))))
    test = [turns for turns in dialogues if plain(turns[0]) in held_out]
    known = {exchange for turns in test for exchange in exchanges(turns)}
    train = []
    for turns in dialogues:
        if plain(turns[0]) in held_out:
            continue
        if known.isdisjoint(exchanges(turns)) and held_out.isdisjoint(map(plain, turns[::2])):
            train.append(turns)
        else:
            left_out["that repeat a held-out exchange"] += 1
    random.Random(SEED).shuffle(train)
    return train, test


def exchanges(turns: tuple[str, ...]) -> list[Exchange]:
    return [(plain(user), plain(assistant)) for user, assistant in zip(turns[::2], turns[1::2], strict=True)]


def plain(text: str) -> str:
    """``"What is AI?"`` and ``"what is AI"`` are one question."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def messages(turns: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


if __name__ == "__main__":
    main()
