"""How fast the command line answers: medians over many runs of the whole process, each on one thread.

    python bench/cli.py [--runs 15]

Prints one line for each question: the median and the slowest time, the median processor time (which other work on the machine
does not stretch), and the time allowed. Stops where an exit status is wrong or torch was imported. The exit status is the number of
questions whose median is too slow.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BURNISH = "import sys; from burnish.cli.main import main; code = main(sys.argv[1:])"
REPORT = "; sys.stderr.write('\\ntorch imported' if 'torch' in sys.modules else ''); sys.exit(code)"


def questions(folder: Path) -> dict[str, tuple[list[str], float, int]]:
    """What is asked → (command, seconds allowed, exit status)."""
    model, rows = folder / "model", folder / "rows.jsonl"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    rows.write_text('{"txt": "a column that no format has"}\n' * 1000)
    asked = [sys.executable, "-c", BURNISH + REPORT]
    return {
        "python, nothing imported": ([sys.executable, "-c", "pass"], 1.0, 0),
        "import burnish": ([sys.executable, "-c", "import sys, burnish; code = 0" + REPORT], 0.15, 0),
        "burnish --help": ([*asked, "--help"], 0.5, 0),
        "burnish sft --help": ([*asked, "sft", "--help"], 0.5, 0),
        "mistyped flag": ([*asked, "sft", "--learning_rat", "1"], 1.0, 2),
        "value out of range": ([*asked, "sft", "--learning_rate", "-1"], 1.0, 2),
        "wrong dataset column": ([*asked, "sft", "--model_name_or_path", str(model), "--dataset_name", str(rows)], 1.0, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    slow = 0
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':26}{'median':>9}{'slowest':>9}{'CPU':>9}{'allowed':>9}")
        for name, (command, allowed, status) in questions(Path(folder)).items():
            times, cpu = [], []
            for _ in range(runs + 1):
                start, before = time.perf_counter(), _cpu_of_children()
                done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
                times.append(time.perf_counter() - start)
                cpu.append(_cpu_of_children() - before)
                if done.returncode != status or "torch imported" in done.stderr:
                    raise SystemExit(f"{name}: exit status {done.returncode}, {done.stderr.strip()}")
            median, slowest = statistics.median(times[1:]), max(times[1:])  # the first run may still write bytecode
            slow += median > allowed
            used = statistics.median(cpu[1:])
            print(f"{name:26}{median:8.3f}s{slowest:8.3f}s{used:8.3f}s{allowed:8.2f}s{'' if median <= allowed else '  too slow'}")
    return slow


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
