"""Runs that are killed, and that meet other faults, hundreds of times: started again, they end with the same bits and lines.

    python bench/torture.py [--kills 264] [--kills-of-two 48] [--jobs 2] [--seed 0] [--way "all weights" ...]

Kills of one process and of two are shared out over ways of training (all weights, LoRA, in the background, mixtures, copies,
shards), and within each over its phases. Prints what was tried by fault and phase, then by fault, then one line; what is lost or
wrong is printed as it is found, and makes the exit status 1. `tests/torture` is the short form.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.torture.faults import Trial  # noqa: E402
from tests.torture.runs import server  # noqa: E402
from tests.torture.ways import Way, attempts, run_attempts, subject_of, table, totals, ways  # noqa: E402

from bench.machine import cores  # noqa: E402


def tried(name: str, way: Way, folder: Path, kills: tuple[int, int], seed: int) -> list[Trial]:
    """All that is tried on one way, in a process of its own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    subject = subject_of(server(), way, folder)
    return list(run_attempts(subject, attempts(name, *kills), seed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=264, help="of one process")
    parser.add_argument("--kills-of-two", type=int, default=48, help="of one of two processes, or of their supervisor")
    parser.add_argument("--jobs", type=int, default=len(cores()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", action="append", help="only this one")
    given = parser.parse_args()
    begun, trials = time.monotonic(), list[Trial]()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        every = ways(Path(folder))
        if unknown := [name for name in given.way or () if name not in every]:
            parser.error(f"there is no way {unknown[0]!r}; there are {'; '.join(every)}")
        found = {name: way for name, way in every.items() if given.way is None or name in given.way}
        pairs = sum(way.ranks > 1 for way in found.values())
        kills = -(-given.kills // max(1, len(found) - pairs)), -(-given.kills_of_two // max(1, pairs))
        longest_first = sorted(found, key=lambda name: -found[name].ranks)
        waiting = {
            pool.submit(tried, name, found[name], Path(folder) / name.replace(" ", "-"), kills, given.seed + number): name
            for number, name in enumerate(longest_first)
        }
        for done in as_completed(waiting):
            trials += done.result()
            print(f"{waiting[done]}: {totals(done.result())}; {time.monotonic() - begun:.0f} s", flush=True)
            for trial in done.result():
                if trial.wrong:
                    print(f"{waiting[done]}, {trial.fault} {trial.phase}: {trial.wrong}", flush=True)
    print("", *table(trials, ["fault", "phase"]), "", *table(trials, ["fault"]), sep="\n")
    print(f"\n{totals(trials)}; {time.monotonic() - begun:.0f} s")
    return any(trial.wrong for trial in trials)


if __name__ == "__main__":
    sys.exit(main())
