import json
import math
import subprocess
import sys

import pytest

from burnish.report.metrics import MetricsError
from burnish.report.runs import RunError, RunRecord, read_run


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    names = {"config": "resolved.yaml", "metrics": "metrics.jsonl", "events": "events.jsonl", "environment": "environment.json"}
    for name, text in files.items():
        (folder / names.get(name, f"{name}.json")).write_text(text)
    return folder


def test_everything_a_run_leaves(tmp_path):
    folder = write(
        tmp_path / "run",
        config="learning_rate: 1e-4\neval_strategy: no\nreport_to: []\n",
        metrics='{"step": 1, "loss": 0.5}\n{"step": 1, "eval_loss": "nan"}\n{"step": 2, "lo',
        events='{"number": 1, "event": "start", "step": 0}\n{"number": 2, "event": "save", "step": 3}\n',
        environment='{"python": "3.11"}',
        data='{"train": {"fingerprint": "ab"}}',
    )
    run = read_run(folder)
    assert run.config == {"learning_rate": 1e-4, "eval_strategy": "no", "report_to": []}
    assert run.metrics[0] == {"step": 1, "loss": 0.5}
    assert len(run.metrics) == 2, "the torn last line is left out"
    assert math.isnan(run.metrics[1]["eval_loss"])
    assert [one["event"] for one in run.events] == ["start", "save"]
    assert (run.environment, run.data) == ({"python": "3.11"}, {"train": {"fingerprint": "ab"}})
    assert run.steps == 3


def test_events_of_a_run_that_was_overwritten_are_not_its_own(tmp_path):
    lines = [{"event": "start", "step": 0}, {"event": "end", "step": 900}, {"event": "start", "step": 0}, {"event": "save", "step": 3}]
    run = read_run(write(tmp_path, events="".join(json.dumps(line) + "\n" for line in lines)))
    assert [one["event"] for one in run.events] == ["start", "save"]
    assert run.steps == 3


@pytest.mark.parametrize("there", ["config", "metrics", "events"])
def test_a_run_that_did_not_come_far(tmp_path, there):
    run = read_run(write(tmp_path, **{there: ""}))
    assert run == RunRecord(folder=tmp_path, config={}, metrics=(), events=(), environment={}, data={})
    assert run.steps == 0


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, why in {"empty": "this one has none", "file": "this is a file", "gone": "there is no such folder"}.items():
        with pytest.raises(RunError) as refused:
            read_run(tmp_path / name)
        wanted = f"{tmp_path / name} must be the output_dir of a run, which holds resolved.yaml, metrics.jsonl or events.jsonl, and {why}."
        assert str(refused.value) == wanted


def test_files_that_are_damaged(tmp_path):
    with pytest.raises(MetricsError, match=r"^Line 1 of .*metrics\.jsonl is no JSON object"):
        read_run(write(tmp_path / "a", metrics='{"step": 1\n{"step": 2}\n'))
    with pytest.raises(RunError, match=r"data\.json is not JSON \(.*\); put the original back, or delete it to read the rest\.$"):
        read_run(write(tmp_path / "b", metrics="", data="{"))
    assert read_run(write(tmp_path / "c", metrics="", data=json.dumps([1]))).data == {}


def test_torch_is_not_imported():
    ask = "import burnish.report.runs, sys\nprint(*{'torch', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
