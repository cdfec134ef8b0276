"""Where and when something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.processes import ROOT


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": len(cores()),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """Its name; where a hypervisor tells no model, the widest vector instructions stand for it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    widest = next((name for name in ("amx_tile", "avx512_bf16", "avx512f", "avx2") if name in said.get("flags", "").split()), "")
    return " ".join(filter(None, [said.get("model name") or platform.processor() or platform.machine(), f"({widest})" if widest else ""]))


def cores() -> set[int]:
    """Those that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load() -> float:
    """Processes that wanted a core, on average of the last minute."""
    return round(os.getloadavg()[0], 2)


def commit() -> str:
    """Of this repository, and whether files differ from it; "unknown" outside of one."""
    git = ["git", "-C", str(ROOT)]
    named = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if named.returncode:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False)
    return named.stdout.strip() + (" and changes" if changed.stdout.strip() else "")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
