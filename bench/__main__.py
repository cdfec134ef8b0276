"""Measures suites: ours beside a peer, each in turn and in a process of its own, and how cost grows.

    python -m bench [SUITE ...] [--short] [--rounds 3] [--minutes 18]

Writes a file for each suite, with versions, hardware, the command and every turn, and prints the figures. `python -m bench.page` makes
docs/benchmarks.md of such files, `python -m bench.table` prints them and says whether two runs agree.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from bench.harness import MATMUL, Bench, Options
from bench.processes import TurnError, ask
from bench.suites import NAMES, suite
from bench.table import show


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a turn under way is ended with it
    given = parsed()
    options = Options(
        model=given.model,
        trl_python=given.trl_python,
        vllm_python=given.vllm_python,
        short=given.short,
        rounds=given.rounds,
        steps=given.steps,
        threads=given.threads,
        minutes=given.minutes,
        compute_dtype=given.compute_dtype,
        onednn=given.onednn,
        output=given.output,
    )
    if not options.model.exists():
        raise SystemExit(f"{options.model} is absent: run `make smollm2`, or name a folder by --model.")
    if options.onednn:
        refuse_rounding(options.threads)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        tempfile.tempdir = scratch  # of what cases and their processes leave there nothing remains
        return measured(options, given)


def measured(options: Options, given: argparse.Namespace) -> int:
    """Runs the suites and shows what came of it; 1 where a turn failed."""
    bench = Bench({name: suite(name).cases(options) for name in given.suites or NAMES}, options)
    bench.run()
    show(options.output, given.beside, given.suites or NAMES)
    for line in dict.fromkeys(bench.failed):
        print(f"FAILED: {line}")
    return 1 if bench.failed else 0


def refuse_rounding(threads: int) -> None:
    """Raises SystemExit where oneDNN rounds float32 products here (see `subjects/matmul.py`): steps would not be float32 ones."""
    try:
        (answer,), _ = ask("matmul", [MATMUL | {"threads": threads}], threads=threads)
    except TurnError as error:
        raise SystemExit(f"--onednn: the product could not be tried: {error}") from None
    if "onednn" not in answer["measures"]:
        raise SystemExit("--onednn: here oneDNN rounds float32 products to bfloat16; leave it out, or take --compute-dtype bfloat16.")


def known(name: str) -> str:
    """Not `choices`, which some versions of Python also hold against no name at all."""
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"there is no suite {name!r}; there are {', '.join(NAMES)}")
    return name


def parsed() -> argparse.Namespace:
    found = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("suites", nargs="*", metavar="SUITE", type=known, help=f"of {', '.join(NAMES)}; all, where none is named")
    found.add_argument("--short", action="store_true", help="smaller steps and fewer of TRL's settings: all suites in less than 20 minutes")
    found.add_argument("--rounds", type=int, default=3, help="turns of each side")
    found.add_argument("--steps", type=int, default=1, help="measured optimizer steps in a turn, after one to warm up")
    found.add_argument("--minutes", type=float, help="begin no further round of a case that would not end within so many")
    found.add_argument("--threads", type=int, default=1, help="of every side")
    found.add_argument("--compute-dtype", choices=["float32", "bfloat16"], default="float32", help="of training; weights are float32")
    found.add_argument("--onednn", action="store_true", help="have PyTorch hand float32 products to oneDNN, in trainings of both sides")
    found.add_argument("--model", type=Path, default=Path("models/smollm2"), help="the folder `make smollm2` made")
    found.add_argument("--trl-python", type=Path, default=Path(".venv-trl/bin/python"))
    found.add_argument("--vllm-python", type=Path, default=Path(".venv-vllm/bin/python"), help="left out where it is not there")
    found.add_argument("--output", type=Path, default=Path("runs/bench"), help="a folder for the files")
    found.add_argument("--beside", type=Path, default=Path("bench/results"), help="a folder of files to compare the figures with")
    return found.parse_args()


if __name__ == "__main__":
    sys.exit(main())
