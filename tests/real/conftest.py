from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct that `make smollm2` makes."""
    folder = Path(os.environ.get("BURNISH_SMOLLM2", ROOT / "models" / "smollm2"))
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"{folder} is absent: run `make smollm2`, or set BURNISH_SMOLLM2 to the folder it made")
    return folder
