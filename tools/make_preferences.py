"""Make pairs to learn preferences from, out of packages of the Python package index.

    python tools/make_preferences.py models/preferences

writes two sets, each as `train.jsonl`, `valid.jsonl` (to choose settings on) and `test.jsonl`, of rows ``{"prompt": [messages],
"chosen": [message], "rejected": [message]}``:

`replies`: questions of the English dialogues of `chatterbot-corpus` (BSD). Chosen is the reply that stands there, rejected the reply
to another question of the same set, whose pair has the two the other way round: of such two pairs a judge that does not read the
question is right in one. No question is in two sets. One exchange is left out of a set that has an odd number of them.

`judged`: the pairs of `llamafactory`'s demonstration of DPO, of two models' answers to instructions, one of which was judged the better.
Their licence is not stated: they are written for trials, and not to be passed on. No prompt is in two files; what has more than
`MAX_CHARACTERS` with its longer answer is left out.
"""

from __future__ import annotations

import json
import random
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from make_dialogues import PACKAGE as DIALOGUES
from make_dialogues import plain, read
from registry import fetch_sdist, fetch_wheel

PAIRS = "llamafactory==0.9.5"
MEMBER = "data/dpo_en_demo.json"
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
MAX_CHARACTERS = 3000
SEED = 0
SHARES = {"test": 0.25, "valid": 0.1}

Pair = dict[str, list[dict[str, str]]]


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: make_preferences.py OUTPUT_DIR")
    output = Path(sys.argv[1])
    if (output / ".made").is_file():
        print(f"{output} is already made")
        return
    left_out: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        replies = {plain(turns[0]): turns[:2] for turns in read(fetch_wheel(DIALOGUES, Path(scratch)), Counter())}
        judged = read_judged(fetch_sdist(PAIRS, Path(scratch)), left_out)
    for name, questions in split(sorted(replies)).items():
        write(output / "replies" / f"{name}.jsonl", pair_replies([replies[question] for question in questions]))
    for name, prompts in split(sorted({key(pair) for pair in judged})).items():
        write(output / "judged" / f"{name}.jsonl", [pair for pair in judged if key(pair) in set(prompts)])
    (output / ".made").touch()
    print(f"{output}: left out of judged: " + (", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none"))


def pair_replies(exchanges: list[tuple[str, ...]]) -> list[Pair]:
    """Each question with its own reply and that of another, which has this one's; exchanges in a random order."""
    exchanges = random.Random(SEED).sample(exchanges, len(exchanges) // 2 * 2)
    by_reply = sorted(range(len(exchanges)), key=lambda i: plain(exchanges[i][1]))
    # Same replies stand together in this order; half of all further on stands another, as none makes up half of them, and half of all
    # further on again the first.
    other = {i: by_reply[(place + len(by_reply) // 2) % len(by_reply)] for place, i in enumerate(by_reply)}
    pairs = []
    for i, (question, reply) in enumerate(exchanges):
        chosen, rejected = message("assistant", reply), message("assistant", exchanges[other[i]][1])
        pairs.append({"prompt": [message("user", question)], "chosen": [chosen], "rejected": [rejected]})
    return pairs


def read_judged(sdist: Path, left_out: Counter[str]) -> list[Pair]:
    with tarfile.open(sdist) as archive:
        (member,) = (one for one in archive.getmembers() if one.name.partition("/")[2] == MEMBER)
        file = archive.extractfile(member)
        assert file is not None
        rows: list[dict[str, Any]] = json.load(file)
    kept = []
    for row in rows:
        prompt = [message(ROLES[turn["from"]], turn["value"]) for turn in row["conversations"]]
        chosen, rejected = (row[side]["value"].strip() for side in ("chosen", "rejected"))
        if not chosen or not rejected or chosen == rejected:
            left_out["with answers that are empty or the same"] += 1
        elif sum(len(turn["content"]) for turn in prompt) + max(len(chosen), len(rejected)) > MAX_CHARACTERS:
            left_out[f"of more than {MAX_CHARACTERS:,} characters"] += 1
        else:
            kept.append({"prompt": prompt, "chosen": [message("assistant", chosen)], "rejected": [message("assistant", rejected)]})
    return kept


def split(names: list[str]) -> dict[str, list[str]]:
    names = random.Random(SEED).sample(names, len(names))
    test, valid = (round(SHARES[name] * len(names)) for name in ("test", "valid"))
    return {"test": names[:test], "valid": names[test : test + valid], "train": names[test + valid :]}


def key(pair: Pair) -> str:
    return plain(" ".join(turn["content"] for turn in pair["prompt"]))


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write(path: Path, pairs: list[Pair]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), encoding="utf-8")
    print(f"{path}: {len(pairs):,} pairs")


if __name__ == "__main__":
    main()
