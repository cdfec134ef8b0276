"""kill -9 at random moments of saving, pruning and replacing: what is found next is whole, and never older than what was finished."""

import random
import signal
import subprocess
import sys
import time

from burnish.checkpoint.files import find_checkpoint, save_checkpoint

RUN = {"model": "m"}

# Each step is saved twice: the second save replaces the first. Only a finished save is announced.
SAVER = """
import os, sys
from pathlib import Path
from burnish.checkpoint.files import find_checkpoint, save_checkpoint

output_dir, run = Path(sys.argv[1]), {"model": "m"}

def write(folder):
    (folder / "adapter").mkdir()
    for name in ("model.bin", "optimizer.bin", "adapter/a.bin"):
        with open(folder / name, "wb") as file:
            for _ in range(8):
                file.write(bytes([step % 256]) * 20_000)

step = find_checkpoint(output_dir, run).step
os.write(1, b"begun\\n")
while True:
    step += 1
    for _ in range(2):
        save_checkpoint(output_dir, step, write, identity=run, save_total_limit=2)
        os.write(1, b"%d\\n" % step)
"""


def test_whatever_is_found_after_a_kill_is_whole(tmp_path):
    clock = random.Random(7)
    interrupted = finished = 0
    for _ in range(20):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert saver.stdout.readline() == "begun\n"
        time.sleep(clock.uniform(0, 0.1))
        saver.send_signal(signal.SIGKILL)
        steps = saver.stdout.read().split()
        saver.wait()
        finished = max([finished, *map(int, steps)])
        interrupted += any(not path.name.startswith("checkpoint-") for path in tmp_path.iterdir())

        found = find_checkpoint(tmp_path, RUN)

        assert found.skipped == ()
        # A save that was killed after its rename and before it could say so counts as well.
        assert found.step in (finished, finished + 1)
        if found.path:
            assert (found.path / "model.bin").read_bytes() == bytes([found.step % 256]) * 160_000
        assert all(path.name.startswith("checkpoint-") for path in tmp_path.iterdir())
        finished = found.step
    assert interrupted >= 3
    assert finished >= 3
    # Deaths between a save and its pruning leave more than the limit, until a process lives long enough.
    save_checkpoint(tmp_path, finished + 1, lambda folder: None, identity=RUN, save_total_limit=2)
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{finished}", f"checkpoint-{finished + 1}"}
