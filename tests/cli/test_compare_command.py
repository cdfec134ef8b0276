"""`burnish compare`, on folders as a run writes them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from burnish.cli.main import main

METRICS = {
    "a": [{"step": 2, "reward": 0.5, "reward_stderr": 0.03, "num_tokens": 1000, "tokens_per_second": 50.0, "[bold]": 1}],
    "b": [{"step": 2, "reward": 0.65, "reward_stderr": 0.04, "num_tokens": 2000, "tokens_per_second": 40.0, "[bold]": "nan"}],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, lines in METRICS.items():
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "resolved.yaml").write_text(f"learning_rate: 1e-4\nseed: {ord(name)}\noutput_dir: {name}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_the_table(folder, capsys):
    """0.65 - 0.5 = 0.15 ± sqrt(0.0009 + 0.0016) = ± 0.05; 1,000 tokens at 50 a second are 20 s, 2,000 at 40 are 50 s."""
    assert main(["compare", "runs/a", "runs/b"]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if line.strip()] == [
        ["a", "b", "difference"],
        ["status", "unknown", "unknown"],
        ["steps", "2", "2"],
        ["tokens", "1,000", "2,000"],
        ["seconds", "20.0", "50.0"],
        ["training", "20.0", "50.0"],
        ["options"],
        ["seed", "97", "98"],
        ["metrics"],
        ["reward", "0.5", "±", "0.03", "0.65", "±", "0.04", "+0.15", "±", "0.05", "*"],
        ["best", "0.5", "±", "0.03", "at", "2", "0.65", "±", "0.04", "at", "2"],
        ["[bold]", "1", "nan", "nan"],
        ["tokens_per_second", "50", "40", "-10"],
        ["best", "50", "at", "2", "40", "at", "2"],
        ["The", "same", "in", "all:", "data,", "versions."],
        *[line.split() for line in out.splitlines()[-1:]],
    ]
    assert out.endswith("taking the runs as independent. Of many metrics, one in twenty is marked by chance.\n")
    assert max(map(len, out.splitlines()[:-1])) <= 80


@pytest.mark.parametrize("columns", [40, 30])
def test_narrow_terminals_hide_nothing(folder, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["compare", "runs/a", "runs/b", "runs/a", "--metrics", "reward"]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert "*" in out


def test_for_machines(folder, capsys):
    assert main(["compare", "runs/a", "runs/b", "--metrics", "rew*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (reward,) = found["metrics"]
    assert reward["last"][1] == {"value": 0.65, "stderr": 0.04, "step": 2}
    assert reward["difference"] == [None, {"value": pytest.approx(0.15), "stderr": pytest.approx(0.05), "beyond": True}]
    assert found["config"] == {"seed": [97, 98]}
    assert [run["run"] for run in found["runs"]] == ["runs/a", "runs/b"]
    assert main(["compare", "runs/a", "runs/b", "--metrics", "?bold?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"][0]["last"][1]["value"] == "nan"


REFUSED = [
    (["compare", "runs/a"], "runs/a alone cannot be compared; name two runs or more."),
    (["compare"], "burnish compare needs --runs."),
    (
        ["compare", "runs/a", "nowhere"],
        "nowhere must be the output_dir of a run, which holds resolved.yaml, metrics.jsonl or events.jsonl, and there is no such folder.",
    ),
    (["compare", "runs/a", "runs/b", "--metrics", "rewad"], "No run has a metric 'rewad'; the nearest is 'reward'."),
    (["compare", "runs/a", "runs/b", "--at", "1"], "runs/a has logged nothing by step 1; its first line is of step 2."),
]


@pytest.mark.parametrize(("argv", "sentence"), REFUSED, ids=[" ".join(argv) for argv, _ in REFUSED])
def test_refusals(folder, capsys, argv, sentence):
    assert main(argv) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_torch_is_not_imported(folder):
    ask = "import sys\nfrom burnish.cli.main import main\nmain(['compare', 'runs/a', 'runs/b'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "False"
