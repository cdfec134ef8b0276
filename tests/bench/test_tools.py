"""What the tools say of words they do not know: one sentence, and no trace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def said(*command, **environment):
    """(status, what it said of its fault)."""
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr.strip() or ended.stdout.strip()


@pytest.mark.parametrize("given", [("los", "loss"), ("loss", "los")])
def test_a_mistyped_metric_of_a_curve(given, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n")
    status, words = said(sys.executable, "tools/curve.py", str(tmp_path), *given, str(tmp_path / "out"))
    assert (status, words) == (1, f"{tmp_path}/metrics.jsonl: no line has 'los'; there are loss, step")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("tool", "words"), [("record_trl.py", ()), ("untied_head.py", ("model",))])
def test_a_tool_without_its_arguments(tool, words):
    status, told = said(sys.executable, f"tools/{tool}", *words)
    assert status == 1
    assert told.startswith(f"usage: {tool} ")
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "port", "more"),
    [((), "8000", ""), (("--seed", "1"), "8000", " --seed 1"), (("81",), "81", ""), (("81", "--seed", "1"), "81", " --seed 1")],
)
def test_the_server_s_port_may_be_left_out(words, port, more):
    status, told = said("tools/vllm_server.sh", "a-model", *words, VLLM_PYTHON="echo")
    assert status == 0
    assert f" --model a-model --host 127.0.0.1 --port {port} " in told
    assert told.endswith(f"--enforce-eager{more}")


@pytest.mark.parametrize(
    ("words", "fault"), [((), "usage: tools/vllm_server.sh MODEL"), (("m", "8o"), "the port is '8o', which is no number")]
)
def test_a_server_without_a_model_or_with_a_wrong_port(words, fault):
    status, told = said("tools/vllm_server.sh", *words, VLLM_PYTHON="echo")
    assert status != 0
    assert fault in told
