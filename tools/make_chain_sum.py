"""Make sums and differences of two one-digit numbers to learn from rewards on, with reasoning-gym.

    python tools/make_chain_sum.py models/chain_sum

writes `train.jsonl` and `test.jsonl`, of rows ``{"prompt": messages, "answer": "7"}``: the questions of the task `chain_sum`, each once. A
question is held out or not by a hash of its text, so that no question is in both files.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from burnish.rewards.reasoning_gym import rows

DRAWS, SEED = 5000, 1
"""There are 200 questions; so many draws find each of them."""
SYSTEM = (
    "You answer arithmetic problems with one number. When a smaller number minus a larger one is asked, the answer is negative, such as -4."
)
"""Without it the model hardly ever says a minus sign, and what is never said is never rewarded."""
HELD_OUT = 77
"""Of 256 hashes."""


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: make_chain_sum.py OUTPUT_DIR")
    output = Path(sys.argv[1])
    drawn = rows("chain_sum", DRAWS, SEED, system=SYSTEM, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    found = {row["question"]: row for row in drawn}
    output.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        kept = [found[question] for question in sorted(found) if split_of(question) == name]
        lines = [json.dumps({"prompt": row["prompt"], "answer": row["answer"]}) + "\n" for row in kept]
        (output / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{output / name}.jsonl: {len(kept)} questions")


def split_of(question: str) -> str:
    return "test" if hashlib.sha256(question.encode()).digest()[0] < HELD_OUT else "train"


if __name__ == "__main__":
    main()
