"""How long a step is held up by a checkpoint, written at once and in the background: `python bench/save.py`.

SmolLM2 (`make smollm2`), float32, AdamW: weights and optimizer are 1.6 GB. In the background a step waits for a copy in memory,
and the next checkpoint for the one before.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from burnish import SFTConfig, SFTTrainer
from burnish.checkpoint.directory import RunDirectory

SAVES = 4


def held_up(folder: Path, *, background: bool) -> list[float]:
    """Seconds that each save kept the loop."""
    seconds: list[float] = []
    whole = RunDirectory.save

    def timed(self, *args, **options):
        self.finish()  # the one before, which in a real run has hundreds of steps to be done
        started = time.perf_counter()
        whole(self, *args, **options)
        seconds.append(time.perf_counter() - started)

    RunDirectory.save = timed
    try:
        args = SFTConfig(
            output_dir=str(folder),
            max_steps=SAVES,
            save_steps=1,
            save_total_limit=1,
            save_async=background,
            compute_dtype="float32",
            batch_size=1,
        )
        SFTTrainer(
            "models/smollm2", args, train_dataset=[{"prompt": "What is a checkpoint?", "completion": " A state to continue from."}] * 8
        ).train()
    finally:
        RunDirectory.save = whole
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ratios = []
        for turn in range(2):
            at_once, behind = (held_up(Path(folder, f"{turn} {way}"), background=way) for way in (False, True))
            ratios += [a / b for a, b in zip(at_once[1:], behind[1:], strict=True)]
            print(f"held up at once {statistics.median(at_once[1:]):.2f} s, in the background {statistics.median(behind[1:]):.2f} s")
        print(f"median of ratios {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
