"""Preparing chat rows from a file for SFT, and again from the cache that this fills; by ours or by TRL's SFTTrainer.

Ours is timed from opening the file to the first example read; TRL's is its `_prepare_dataset` alone, the data set already loaded.

Specification: `{"library": "burnish" | "trl", "rows": file, "tokenizer": folder, "assistant_only_loss": …, "num_proc": null | processes}`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from bench.subjects.inside import Answer, clocks, peak_bytes, serve, since

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
MARKED_CHATML = (
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


def prepare_ours(spec: dict[str, Any], cache: str) -> Answer:
    import numpy as np
    from transformers import AutoTokenizer

    from burnish.data.prepare import PrepareOptions, prepare
    from burnish.data.sources import open_rows

    tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"])
    template = MARKED_CHATML if spec["assistant_only_loss"] else None
    options = PrepareOptions(max_length=MAX_LENGTH, assistant_only_loss=spec["assistant_only_loss"], chat_template=template)
    seconds = []
    for _ in range(2):
        start = clocks()
        store = prepare(open_rows(spec["rows"]), tokenizer, options, cache_dir=cache, num_proc=spec["num_proc"])
        assert store[0]
        seconds.append(since(start))
    found = measured(seconds)
    rows = [[(s.token_ids, [s.trained] * len(s)) for s in (*e.prompt, *e.branches[0].segments)] for e in store]
    ids = (np.concatenate([part[0] for part in row]) for row in rows)
    return {"measures": found, "facts": {"signature": signature(ids, (sum((part[1] for part in row), []) for row in rows))}}


def prepare_trl(spec: dict[str, Any], cache: str) -> Answer:
    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    seconds = []

    class Timed(SFTTrainer):
        def _prepare_dataset(self, *arguments: Any, **options: Any) -> Any:
            start = clocks()
            prepared = super()._prepare_dataset(*arguments, **options)
            assert prepared[0]
            seconds.append(since(start))
            return prepared

    datasets.disable_progress_bars()
    for _ in range(2):
        tokenizer = AutoTokenizer.from_pretrained(spec["tokenizer"])
        if spec["assistant_only_loss"]:
            tokenizer.chat_template = MARKED_CHATML
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
        trainer = Timed(
            model=LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)),
            args=SFTConfig(
                output_dir=cache,
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
    found, rows = measured(seconds), trainer.train_dataset
    trained = ([label != -100 for label in labels] for labels in rows["labels"])
    return {"measures": found, "facts": {"signature": signature(rows["input_ids"], trained)}}


def measured(seconds: list[tuple[float, float]]) -> dict[str, list[float]]:
    """Before the signature is taken, which holds all rows in memory."""
    (cpu, wall), (_, again) = seconds
    return {"cpu_s": [cpu], "wall_s": [wall], "cached_s": [again], "peak_bytes": [peak_bytes()]}


def run(spec: dict[str, Any]) -> Answer:
    """One preparation and its repetition, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as cache:
        os.environ["HF_DATASETS_CACHE"] = cache  # before datasets is imported
        return (prepare_ours if spec["library"] == "burnish" else prepare_trl)(spec, cache)


if __name__ == "__main__":
    serve(run)
