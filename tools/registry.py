"""What the `make_*` scripts need of the package registry: a package's files, without installing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def fetch_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel, such as ``"gguf==0.19.0"``, into ``folder``. Its dependencies are left where they are.

    Raises:
        SystemExit: pip is absent, or found no index that has it.
    """
    run_pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement)
    (wheel,) = folder.glob(f"{requirement.split('==')[0].replace('-', '_')}-*.whl")
    return wheel


def fetch_sdist(requirement: str, folder: Path) -> Path:
    """Download the source archive of a package, such as ``"llamafactory==0.9.5"``, into ``folder``. Nothing of it is built for use.

    Raises:
        SystemExit: pip is absent, or found no index that has it.
    """
    run_pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), requirement)
    (sdist,) = folder.glob(f"{requirement.split('==')[0].replace('-', '_')}-*.tar.gz")
    return sdist


def run_pip(*args: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *args]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise SystemExit(f"pip {' '.join(args)} failed ({reason}): check that {sys.executable} has pip and can reach a package index.")
