"""Folders of runs, made by hand, for the tests of the report's page: what a run writes, with numbers that are known."""

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from burnish.report.samples import SampleFiles

BEGUN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\"><b>${alert(1)}</b>"
WORDS = ["<s>", "a", "Ġb", "ĠÃ", "¤", "Ċ", *HOSTILE.split()]
"""Token 3 and token 4 are one character between them, ä."""
OPTIONS = """\
model_name_or_path: none/such
output_dir: runs/one
learning_rate: 1.0e-05
max_steps: 4
num_generations: 2
logging_steps: 1
"""


def event(number, minutes, kind, step=0, pid=1, **facts):
    time = (BEGUN + timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
    return {"number": number, "time": time, "pid": pid, "event": kind, "step": step, "host": socket.gethostname() + "-other", **facts}


def jsonl(path: Path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def sample(step=0, group="rows:0", number=0, *, reward=1.0, tokens=(1, 2), name="train", **more):
    """A line of samples.jsonl. Its completion says which it is."""
    line = {
        "step": step,
        "set": name,
        "group": group,
        "prompt": f"<|im_start|>user\nasked {group}<|im_end|>\n",
        "prompt_tokens": [0, 1],
        "sample": number,
        "completion": [{"role": "assistant", "content": f"step {step} {group} number {number}"}],
        "finish_reason": "stop",
        "tokens": list(tokens),
        "logp": [-0.5] * len(tokens),
        "sampled_logp": [None] * len(tokens),
        "trained": [1] * len(tokens),
        "version": step,
        "extras": {},
        "reward": reward,
        "advantage": 0.5,
        "rewards": {"right": reward},
    }
    return line | more


def write_samples(folder: Path, steps) -> SampleFiles:
    files = SampleFiles(folder)
    for lines in steps:
        files.append(lines)
    return files


def only_samples(folder: Path, steps) -> SampleFiles:
    """Instead of those that `make_run` wrote."""
    (folder / "samples" / "00000.jsonl.gz").unlink()
    return write_samples(folder, steps)


def more_samples(folder: Path) -> SampleFiles:
    """What appends to those that are there."""
    files = SampleFiles(folder)
    files.place = (0, (folder / "samples" / "00000.jsonl.gz").stat().st_size)
    return files


def write_tokenizer(folder: Path):
    content = {
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {word: i for i, word in enumerate(WORDS)}},
        "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))


def make_run(folder: Path, steps: int = 4, *, prompts: int = 3, options: str = OPTIONS, reward: float = 0.0) -> Path:
    """A run of GRPO that is finished: rewards rise by 0.1 a step from `reward` on, and have a standard error of 0.05."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "step": step,
            "reward": reward + 0.1 * step,
            "reward_stderr": 0.05,
            "loss": 1 / step,
            "grad_norm": 1.0,
            "completions/clipped_ratio": 0.0,
            "time/sampling": 2.0,
            "time/scoring": 0.5,
            "time/training": 1.0,
            "epoch": step / 4,
            "num_tokens": 100 * step,
            "tokens_per_second": 25.0,
        }
        for step in range(1, steps + 1)
    ]
    evaluated = {"step": steps, "eval_new_accuracy": 0.75, "eval_new_accuracy_stderr": 0.1, "eval_new_runtime": 3.0}
    jsonl(folder / "metrics.jsonl", [*lines, evaluated])
    command = ["/bin/burnish", "grpo"]
    jsonl(
        folder / "events.jsonl",
        [event(1, 0, "start", command=command), event(2, 1, "save", 2, seconds=1.5, bytes=2048), event(3, 2, "end", 4)],
    )
    (folder / "resolved.yaml").write_text(options)
    (folder / "data.json").write_text(json.dumps({"train": {"fingerprint": "ab", "prompts": prompts}}))
    (folder / "environment.json").write_text(
        json.dumps({"python": "3.11.7", "packages": {"burnish": "0.1.0"}, "gpus": [], "memory_bytes": 2**30})
    )
    write_tokenizer(folder)
    write_samples(
        folder,
        [
            [
                sample(step, f"rows:{group}", number, reward=float(number), tokens=(1, 2, 3, 4)[: 3 + number])
                for group in range(prompts)
                for number in (0, 1)
            ]
            for step in range(steps)
        ],
    )
    return folder
