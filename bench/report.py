"""How fast the report of a long run is written, and how fast it opens in a headless Chromium.

    python -m bench.report [--samples 50000] [--tokens 200]

Makes a run's folder with so many samples (rounded up to whole groups in each of 100 steps: 50,400) of about so many tokens, the text of
which does not repeat; writes its report with the command; opens it `--rounds` times from its file in a browser that has just been started,
and says when the page was ready (from the start of the navigation until every section is there and can be used), how long one filter took,
and how long the first sample took to be shown. Needs Chromium, its driver and selenium (`make test-browser` installs selenium).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.browser.chromium import start

from burnish.report.samples import SampleFiles

STEPS = 100
GROUP = 8
WORDS = 8000


def make(folder: Path, samples: int, tokens: int) -> int:
    """A run of GRPO: `STEPS` steps, groups of `GROUP`, completions of half to one and a half times `tokens`; how many samples it has."""
    chance = random.Random(0)
    words = ["".join(chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(chance.randint(2, 7))) for _ in range(WORDS)]
    folder.mkdir(parents=True)
    vocabulary = {f"Ġ{word}": i for i, word in enumerate(words)}
    content = {"decoder": {"type": "ByteLevel"}, "model": {"vocab": vocabulary}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    files = SampleFiles(folder)
    groups = -(-samples // (STEPS * GROUP))
    with (folder / "metrics.jsonl").open("w") as metrics:
        for step in range(STEPS):
            names = {f"metric/{i}": chance.random() for i in range(40)}
            metrics.write(json.dumps({"step": step + 1, "reward": step / STEPS, "reward_stderr": 0.02, "loss": 0.1, **names}) + "\n")
            files.append([_sample(chance, words, step, group, n, tokens) for group in range(groups) for n in range(GROUP)])
    return STEPS * groups * GROUP


def _sample(chance: random.Random, words: list[str], step: int, group: int, number: int, tokens: int) -> dict[str, object]:
    asked = [hash((step, group, i)) % WORDS for i in range(60)]
    said = [chance.randrange(WORDS) for _ in range(chance.randint(tokens // 2, tokens * 3 // 2))]
    reward = round(chance.random(), 3)
    return {
        "step": step,
        "set": "train",
        "group": f"rows:{step * 1000 + group}",
        "sample": number,
        "prompt": "".join(f" {words[i]}" for i in asked),
        "prompt_tokens": asked,
        "completion": "".join(f" {words[i]}" for i in said),
        "finish_reason": "stop",
        "tokens": said,
        "logp": [round(-chance.expovariate(2.0), 4) for _ in said],
        "sampled_logp": [None] * len(said),
        "trained": [1] * len(said),
        "rewards": {"right": reward},
        "reward": reward,
        "advantage": reward - 0.5,
        "version": step,
        "extras": {},
    }


READY = """
const done = arguments[0];
const look = () => document.documentElement.dataset.ready ? done(performance.now()) : setTimeout(look, 1);
look();"""
FILTER = """
const field = document.querySelector('[name="low"]'), began = performance.now();
field.value = "0.9";
field.dispatchEvent(new Event("input"));
return [performance.now() - began, document.querySelector(".listside .count").textContent];"""
OPEN = """
const done = arguments[0], began = performance.now();
document.querySelector(".item").click();
const look = () => document.querySelector(".panel .tokens [data-k]") ? done(performance.now() - began) : setTimeout(look, 1);
look();"""


def opened(path: Path) -> tuple[float, float, str, float]:
    """Seconds until ready, until filtered, what is said of the filter, and until a sample is shown."""
    driver = start(60)
    try:
        driver.get(path.as_uri())
        ready = driver.execute_async_script(READY)
        took, said = driver.execute_script(FILTER)
        return ready / 1000, took / 1000, said, driver.execute_async_script(OPEN) / 1000
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-report-") as place:
        folder, output = Path(place) / "run", Path(place) / "report.html"
        made = make(folder, args.samples, args.tokens)
        size = sum(path.stat().st_size for path in (folder / "samples").iterdir())
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "burnish", "report", str(folder), "--output", str(output)], check=True)
        print(f"{made:,} samples, {size / 1e6:.1f} MB of samples/: written in {time.monotonic() - began:.1f} s, ", end="")
        print(f"{output.stat().st_size / 1e6:.1f} MB of HTML")
        rounds = [opened(output) for _ in range(args.rounds)]
        for number, (ready, filtered, said, shown) in enumerate(rounds, 1):
            print(f"round {number}: ready after {ready:.2f} s; filtered in {1000 * filtered:.0f} ms ({said}); ", end="")
            print(f"a sample in {1000 * shown:.0f} ms")
        print(f"median until ready: {statistics.median(one[0] for one in rounds):.2f} s")


if __name__ == "__main__":
    main()
