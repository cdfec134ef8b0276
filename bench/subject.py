"""Runs `one_run.py` for one library in a process of its own, and says plainly when that cannot be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def run_once(spec: dict[str, Any], python: Path | None = None) -> dict[str, Any]:
    """One training run in a fresh process, by this interpreter unless another is named; see `one_run.py` for both records.

    Raises:
        SystemExit: the run failed; its last lines are passed on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        question, answer = Path(scratch, "spec.json"), Path(scratch, "result.json")
        question.write_text(json.dumps(spec))
        command = [str(python or sys.executable), str(Path(__file__).with_name("one_run.py")), str(question), str(answer)]
        environment = os.environ | {"OMP_NUM_THREADS": str(spec["threads"]), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
            raise SystemExit(f"{last}\n\nThe {spec['library']} run failed, with the lines above; its options were {spec['options']}.")
        return json.loads(answer.read_text())


def trl_python(path: Path) -> Path:
    if not path.exists():
        raise SystemExit(f"{path} is absent: name by --trl-python the interpreter of an environment with torch==2.13.0 and trl==1.16.0.")
    return path
