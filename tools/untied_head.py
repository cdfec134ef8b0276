"""Copies a model's folder and gives its output head weights of its own, for a vLLM server on a CPU.

    python tools/untied_head.py MODEL FOLDER

Such a server packs the head's weights when it starts. Where they are the embeddings' own, it does not pack them again when weights
are loaded anew (vLLM 0.32), and would go on with the first head. Of a model whose head is its own already, this is a plain copy.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from burnish.rollout.vllm import add_head


def main(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder, dirs_exist_ok=True)
    add_head(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: untied_head.py MODEL FOLDER, folders both")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
