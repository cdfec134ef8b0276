"""A recipe for one node, with its own sharding, in two processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.recipes.small import ROOT, make_small, save_models


def test_a_sharded_recipe_trains_in_two_processes(tmp_path):
    path = ROOT / "recipes" / "one_node" / "sft.yaml"
    save_models(tmp_path)
    small = make_small(path, tmp_path)
    assert "fsdp: full_shard" in small.read_text()
    command = [sys.executable, "-m", "burnish", "sft", "--config", str(small), "--devices", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "one_node" / "sft"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 2
    assert "shards nothing" not in done.stdout
    assert (run / "model.safetensors").is_file()
