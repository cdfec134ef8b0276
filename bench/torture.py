"""kill -9, hundreds of times: runs that die at moments of every kind and are started again end with the same bits.

    python bench/torture.py [--kills 300] [--seed 0]

The kills are shared out over ways of training: all weights, LoRA, a stream of mixed sources, evaluation and saves by the
epoch. Prints one line for each way: kills by kind of moment, and how many came before the first checkpoint. Stops at the
first run that is not the same. `tests/torture` is the short form.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tiny import chats, save_tiny_model, write_rows  # noqa: E402
from tests.torture.runs import server, torture  # noqa: E402

COMMON = "--batch_size 4 --learning_rate 0.1 --compute_dtype float32 --logging_steps 3 --assistant_only_loss"
OFTEN = "--save_steps 2 --save_total_limit 2"
HELD_OUT = "--eval_strategy steps --eval_steps 5 --load_best_model_at_end"


def ways(folder: Path) -> dict[str, str]:
    """Name → flags."""
    model = save_tiny_model(folder / "model", attention_dropout=0.1)
    rows, others = write_rows(folder / "rows.jsonl", chats(40)), write_rows(folder / "others.jsonl", chats(30, seed=1))
    mixture = folder / "mixture.yaml"
    mixture.write_text(f"datasets:\n  - path: {rows}\n    weight: 3\n  - path: {others}\n    weight: 1\n")
    one = f"--model_name_or_path {model} --dataset_name {rows} {COMMON}"
    mixed = f"--model_name_or_path {model} --config {mixture} {COMMON}"
    return {
        "all weights": f"{one} {OFTEN} {HELD_OUT} --test_split_size 8 --max_steps 12",
        "LoRA": f"{one} {OFTEN} {HELD_OUT} --test_split_size 8 --max_steps 12 --use_peft --lora_r 4",
        "mixture": f"{mixed} {OFTEN} --max_steps 12",
        "streamed mixture": f"{mixed} {OFTEN} --max_steps 12 --dataset_streaming",
        "by the epoch": f"{one} --save_strategy epoch --eval_strategy epoch --load_best_model_at_end --test_split_size 8",
        "every step": f"{one} --save_steps 1 --save_total_limit 1 --max_steps 8",
    }


def command(flags: str) -> Callable[[Path], list[str]]:
    return lambda run: ["sft", *flags.split(), "--output_dir", str(run)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    context = server()
    with tempfile.TemporaryDirectory() as folder:
        table = ways(Path(folder))
        for number, (name, flags) in enumerate(table.items()):
            share = given.kills * (number + 1) // len(table) - given.kills * number // len(table)
            begun, deaths = time.monotonic(), []
            for death in torture(context, command(flags), Path(folder) / name.replace(" ", "-"), kills=share, seed=given.seed + number):
                deaths.append(death)
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(death.moment.kind for death in deaths).items()))
            early, again = sum(death.after == 0 for death in deaths), sum(death.before > 0 for death in deaths)
            print(
                f"{name}: {len(deaths)} kills ({kinds}), {early} before the first checkpoint, {again} of runs that had been resumed; "
                f"all ended with the same bits and lines. {time.monotonic() - begun:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
