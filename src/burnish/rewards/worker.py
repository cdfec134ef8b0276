"""A worker: a process that calls reward functions, one call at a time, for as long as it is asked to.

Each answer is the call's number as it came, a byte, `READY` or `LEAVING`, and a JSON object: "rewards" (a number, null, or a reason and a
detail, for each completion) or "failure" (of them all: a reason and a detail), "extras", "metrics" and "seconds". JSON, so that whatever
ran here cannot make the trainer run anything.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from burnish.rewards import frames
from burnish.rewards.contract import Book, RewardFunc
from burnish.rewards.samples import RewardError

READY, LEAVING = b"R", b"L"
DETAIL = 2000
"""Characters of a traceback that are kept, its last."""


def serve(channel: socket.socket, funcs: Sequence[RewardFunc], memory_mib: int | None) -> None:
    """A worker's life. Never returns."""
    me = os.getpid()
    _limit(memory_mib)
    while True:
        try:
            asked = frames.receive(channel)
        except (EOFError, OSError):
            os._exit(0)
        told, leaving = answer(asked[8:], funcs, memory_mib)
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        if os.getpid() != me:  # the function has forked, and returned twice
            os._exit(0)
        try:
            frames.send(channel, asked[:8] + (LEAVING if leaving else READY) + told)
        except OSError:
            os._exit(0)
        if leaving:
            os._exit(0)


def _limit(memory_mib: int | None) -> None:
    """No core files; one thread; so much more memory than what is here already."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if memory_mib is not None:
        # private memory that can be written; not the address space, of which a library may reserve much that it never uses
        limit = _private_bytes() + memory_mib * 2**20
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _private_bytes() -> int:
    """What RLIMIT_DATA counts; 0 where the system does not say."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def answer(asked: bytes, funcs: Sequence[RewardFunc], memory_mib: int | None) -> tuple[bytes, bool]:
    """To one call, and whether the process had better end."""
    started = time.perf_counter()
    said: dict[str, Any] = {}
    out_of_memory = False
    try:
        index, samples, step = pickle.loads(asked)
        book = Book(samples=len(samples))
        said["rewards"] = checked(funcs[index](samples, step, book), len(samples))
        said |= {"extras": book.extras, "metrics": book.metrics}
    except BaseException as error:  # noqa: BLE001  whatever a function does, sys.exit() too, is its failure
        out_of_memory = isinstance(error, MemoryError) or "can't allocate memory" in _message(error)
        said = {"failure": failure(error, memory_mib if out_of_memory else None)}
    said["seconds"] = time.perf_counter() - started
    return json.dumps(said).encode(), out_of_memory


def checked(given: Any, count: int) -> list[Any]:
    """Each a finite number, None, or a reason and a detail. Raises RewardError where there are not `count` of them."""
    if isinstance(given, str | bytes | dict | set | frozenset):
        raise RewardError(f"returned a {type(given).__name__} instead of a list")
    try:
        given = list(given)
    except TypeError:
        raise RewardError(f"returned a {type(given).__name__} instead of a list") from None
    if len(given) != count:
        raise RewardError(f"returned {len(given)} rewards for {count} completions")
    return [_checked(one) for one in given]


def _checked(given: Any) -> Any:
    if given is None:
        return None
    try:
        number = math.inf if isinstance(given, str | bytes) else float(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.inf
    if math.isfinite(number):
        return number
    shown = repr(given)[:200]
    if isinstance(given, float) or "float" in type(given).__name__ or "Tensor" in type(given).__name__:
        return ["returned NaN" if math.isnan(number) else "returned an infinite number", shown]
    return [f"returned a {type(given).__name__}", shown]


def failure(error: BaseException, memory_mib: int | None) -> list[str]:
    """A reason and a detail, the first line of which says what was raised and where."""
    if isinstance(error, RewardError):
        return [str(error), ""]
    reason = f"used more than {memory_mib} MiB" if memory_mib is not None else f"raised {type(error).__name__}"
    steps = [step for step in traceback.extract_tb(error.__traceback__) if "/burnish/rewards/" not in step.filename.replace("\\", "/")]
    outer = [step for step in steps if step.filename == steps[0].filename]
    where = f" (line {outer[-1].lineno} of {outer[-1].filename})" if outer else ""
    return [reason, f"{_message(error)}{where}\n" + "".join(traceback.format_list(steps))[-DETAIL:]]


def _message(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:DETAIL]
