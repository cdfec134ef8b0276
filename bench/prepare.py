"""Preparing 20,000 chat rows: ours beside TRL's SFTTrainer, from the same file, with the same tokenizer, to the same tokens.

    python bench/prepare.py --trl-python .venv-trl/bin/python

Twice: with every token trained and the tokenizer's own template; and with the assistant's alone and a template that has the
marks TRL needs. Every run is a process of its own with an empty cache, and prepares a second time from the cache it filled.
Ours is timed from opening the file to the first example read; TRL's is its `_prepare_dataset` alone, the data set already
loaded. TRL runs with `dataset_num_proc` None and 2, and the better counts. Rounds alternate between the libraries; medians
are compared, CPU seconds beside them.

Exits with status 1 unless ours is 5 times faster where every token is trained, takes less than 2 seconds from the cache, and
the tokens, and which of them are trained, are the same on both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from subject import trl_python

FASTER, FROM_CACHE_S = 5.0, 2.0
MAX_LENGTH = 1024
WORDS = (
    "a about after again all also an and any are as at be because been before being between both but by came can come could day did do "
    "down each even every find first for from get give go good great had has have he help her here him his home how if in into is it "
    "just keep know large last learn left life like line little live long look made make man many may me mean more most move much must "
    "my name near need never new next night no not now number of off often old on once one only open or other our out over own page "
    "paper part people place plant play point read right said same saw say school sea second see seem set she should show side small "
    "so some something sound spell start state still stop story study such sun take talk tell than that the their them then there "
    "these they thing think this those thought three through time to together too took tree try turn two under until up us use very "
    "want was watch water way we well went were what when where which while white who why will with word work world would write year "
    "you young your equation photosynthesis 1984 42 3.14 counterexample implementation São naïve"
)
# ChatML, with the marks TRL needs to know what the assistant said. Ours is given the same.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_rows(path: Path, count: int) -> None:
    """`count` conversations of 3 to 6 turns of 5 to 60 words, beginning with the user."""
    rng, words = random.Random(0), WORDS.split()
    with path.open("w") as file:
        for _ in range(count):
            turns = [" ".join(rng.choices(words, k=rng.randint(5, 60))) + "." for _ in range(rng.randint(3, 6))]
            messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
            file.write(json.dumps({"messages": messages}) + "\n")


def signature(ids: Any, trained: Any) -> str:
    """Of all token ids and of which are trained; a row's first token has nothing to be predicted from and never is."""
    import numpy as np

    content = hashlib.sha256()
    for row_ids, row_trained in zip(ids, trained, strict=True):
        mask = np.asarray(row_trained, dtype=bool).copy()
        mask[0] = False
        content.update(np.asarray(row_ids, dtype=np.int32).tobytes() + mask.tobytes())
    return content.hexdigest()


def clock() -> tuple[float, float]:
    """(wall, CPU) seconds, the CPU's of this process and of those it has waited for."""
    used = os.times()
    return time.perf_counter(), used.user + used.system + used.children_user + used.children_system


def since(start: tuple[float, float]) -> list[float]:
    return [after - before for after, before in zip(clock(), start, strict=True)]


def prepare_ours(spec: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    from transformers import AutoTokenizer

    from burnish.data.prepare import PrepareOptions, prepare
    from burnish.data.sources import open_rows

    tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"])
    template = TEMPLATE if spec["assistant_only_loss"] else None
    options = PrepareOptions(max_length=MAX_LENGTH, assistant_only_loss=spec["assistant_only_loss"], chat_template=template)
    seconds = []
    for _ in range(2):
        start = clock()
        store = prepare(open_rows(spec["rows"]), tokenizer, options, cache_dir=spec["cache"], num_proc=spec["num_proc"])
        assert store[0]
        seconds.append(since(start))
    rows = [[(s.token_ids, [s.trained] * len(s)) for s in (*e.prompt, *e.branches[0].segments)] for e in store]
    ids = (np.concatenate([part[0] for part in row]) for row in rows)
    return {"seconds": seconds, "signature": signature(ids, (sum((part[1] for part in row), []) for row in rows))}


def prepare_trl(spec: dict[str, Any]) -> dict[str, Any]:
    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    seconds = []

    class Timed(SFTTrainer):
        def _prepare_dataset(self, *arguments: Any, **options: Any) -> Any:
            start = clock()
            prepared = super()._prepare_dataset(*arguments, **options)
            assert prepared[0]
            seconds.append(since(start))
            return prepared

    datasets.disable_progress_bars()
    for _ in range(2):
        tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"])
        if spec["assistant_only_loss"]:
            tokenizer.chat_template = TEMPLATE
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
        trainer = Timed(
            model=LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)),
            args=SFTConfig(
                output_dir=spec["cache"],
                max_length=MAX_LENGTH,
                assistant_only_loss=spec["assistant_only_loss"],
                dataset_num_proc=spec["num_proc"],
                report_to="none",
                use_cpu=True,
                bf16=False,
            ),
            train_dataset=datasets.load_dataset("json", data_files=spec["rows"], split="train"),
            processing_class=tokenizer,
        )
    rows = trainer.train_dataset
    trained = ([label != -100 for label in labels] for labels in rows["labels"])
    return {"seconds": seconds, "signature": signature(rows["input_ids"], trained)}


def run(python: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """One preparation and its repetition, in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        answer = Path(cache, "answer.json")
        environment = os.environ | {"HF_DATASETS_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        command = [str(python), __file__, "--answer", str(answer), "--spec", json.dumps(spec | {"cache": cache})]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit("\n".join(done.stderr.strip().splitlines()[-15:]) + f"\n\nThe run {spec} failed, with the lines above.")
        return json.loads(answer.read_text())


def compare(arguments: argparse.Namespace, rows: Path, *, assistant_only_loss: bool) -> bool:
    """Prints one table; whether it shows what is promised."""
    common = {"rows": str(rows), "tokenizer": str(arguments.tokenizer), "assistant_only_loss": assistant_only_loss}
    theirs = trl_python(arguments.trl_python)
    sides = {
        "burnish": (Path(sys.executable), common | {"library": "burnish", "num_proc": None}),
        "trl, dataset_num_proc=None": (theirs, common | {"library": "trl", "num_proc": None}),
        "trl, dataset_num_proc=2": (theirs, common | {"library": "trl", "num_proc": 2}),
    }
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, (python, spec) in sides.items():
            results[name].append(run(python, spec))
    print(f"\n{arguments.rows:,} chat rows, assistant_only_loss={assistant_only_loss}, median of {arguments.rounds} rounds")
    print(f"{'':30}{'first':>12}{'CPU':>12}{'from cache':>12}   every round's first")
    wall = {}
    for name, answers in results.items():
        first, cpu = (statistics.median(answer["seconds"][0][kind] for answer in answers) for kind in (0, 1))
        again = statistics.median(answer["seconds"][1][0] for answer in answers)
        wall[name] = (first, again)
        every = ", ".join(f"{answer['seconds'][0][0]:.2f}" for answer in answers)
        print(f"  {name:28}{first:10.2f} s{cpu:10.2f} s{again:10.2f} s   {every}")
    faster = min(first for name, (first, _) in wall.items() if name != "burnish") / wall["burnish"][0]
    same = len({answer["signature"] for answers in results.values() for answer in answers}) == 1
    print(f"  {faster:.1f} times faster than TRL's better; tokens and trained tokens {'the same' if same else 'DIFFER'}")
    return same and wall["burnish"][1] < FROM_CACHE_S and (faster >= FASTER or assistant_only_loss)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", type=Path, default=Path(".venv-trl/bin/python"))
    parser.add_argument("--tokenizer", type=Path, default=Path("models/smollm2"), help="as `make smollm2` leaves it")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spec", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.spec:
        prepare_one = prepare_ours if arguments.spec["library"] == "burnish" else prepare_trl
        arguments.answer.write_text(json.dumps(prepare_one(arguments.spec)))
        return 0
    if not arguments.tokenizer.exists():
        raise SystemExit(f"{arguments.tokenizer} is absent: run `make smollm2`, or name a tokenizer's folder by --tokenizer.")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "train.jsonl")
        write_rows(rows, arguments.rows)
        shown = [compare(arguments, rows, assistant_only_loss=answers_only) for answers_only in (False, True)]
    return 0 if all(shown) else 1


if __name__ == "__main__":
    sys.exit(main())
