import importlib.util
import json
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

from burnish.report import trackers as trackers_module
from burnish.report.trackers import TrackerError, Trackers, check_trackers

CONFIG = {"learning_rate": 1e-5, "nested": {"a": [1, None]}}


def found(*names):
    """An `importlib.util.find_spec` that finds these packages."""
    return lambda name: SimpleNamespace(origin=f"/{name}/__init__.py") if name in names else None


def test_a_missing_library_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", found("tensorboard"))
    check_trackers(["tensorboard"])
    check_trackers([])
    with pytest.raises(TrackerError) as error:
        check_trackers(["tensorboard", "wandb"])
    assert str(error.value) == "report_to names 'wandb', whose library is not installed; pip install wandb, or leave it out of report_to."


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(TrackerError) as error:
        check_trackers(["tensor_board"])
    assert str(error.value) == "report_to names the unknown tracker 'tensor_board'; did you mean 'tensorboard'?"
    with pytest.raises(TrackerError) as error:
        check_trackers(["comet_ml"])
    assert str(error.value) == "report_to names the unknown tracker 'comet_ml'; known are tensorboard, trackio, wandb, mlflow."


def test_a_folder_named_wandb_is_no_library(tmp_path, monkeypatch):
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("wandb") is not None
    with pytest.raises(TrackerError, match="'wandb', whose library is not installed"):
        check_trackers(["wandb"])


class Recorder:
    """A library that remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, name, result=None):
        def call(*args, **options):
            self.calls.append((name, args, options))
            return result

        return call


@pytest.fixture
def libraries(monkeypatch):
    """wandb, trackio and mlflow as far as they are called."""
    recorder = Recorder()
    run = SimpleNamespace(id="id-1", log=recorder("log"), finish=recorder("finish"))
    mlflow = {name: recorder(name) for name in ("log_dict", "log_metrics", "end_run")}
    mlflow["start_run"] = recorder("start_run", SimpleNamespace(info=SimpleNamespace(run_id="run-1")))
    for name, functions in (("wandb", {"init": recorder("init", run)}), ("trackio", {"init": recorder("init", run)}), ("mlflow", mlflow)):
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.util, "find_spec", found("wandb", "trackio", "mlflow", "tensorboard"))
    for name in ("WANDB_PROJECT", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return recorder


def run_of(name, output_dir, start_step=0):
    trackers = Trackers([name], "my-run", output_dir, CONFIG, start_step=start_step, message=pytest.fail)
    trackers.log(start_step + 1, {"loss": 0.5, "note": "text"})
    trackers.close()
    trackers.close()
    assert trackers.failures == {name: 0}


def test_wandb_goes_on_under_its_id(libraries, tmp_path, monkeypatch):
    run_of("wandb", tmp_path)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run_of("wandb", tmp_path, start_step=7)
    common = {"name": "my-run", "dir": tmp_path, "config": CONFIG}
    assert libraries.calls == [
        ("init", (), {"project": "burnish", "id": None, "resume": None, **common}),
        ("log", ({"loss": 0.5},), {"step": 1}),
        ("finish", (), {}),
        ("init", (), {"project": "mine", "id": "id-1", "resume": "allow", **common}),
        ("log", ({"loss": 0.5},), {"step": 8}),
        ("finish", (), {}),
    ]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "id-1"}


def test_a_run_begun_anew_does_not_continue_the_old_one(libraries, tmp_path):
    run_of("wandb", tmp_path)
    run_of("wandb", tmp_path)
    assert [options["id"] for name, _, options in libraries.calls if name == "init"] == [None, None]


def test_trackio_goes_on_under_its_name(libraries, tmp_path):
    run_of("trackio", tmp_path)
    run_of("trackio", tmp_path, start_step=7)
    common = {"project": "burnish", "name": "my-run", "config": CONFIG, "embed": False}
    assert libraries.calls == [
        ("init", (), {"resume": "never", **common}),
        ("log", ({"loss": 0.5},), {"step": 1}),
        ("finish", (), {}),
        ("init", (), {"resume": "allow", **common}),
        ("log", ({"loss": 0.5},), {"step": 8}),
        ("finish", (), {}),
    ]


def test_mlflow_goes_on_under_its_id(libraries, tmp_path):
    run_of("mlflow", tmp_path)
    run_of("mlflow", tmp_path, start_step=7)
    assert libraries.calls == [
        ("start_run", (), {"run_id": None, "run_name": "my-run"}),
        ("log_dict", (CONFIG, "config.json"), {}),
        ("log_metrics", ({"loss": 0.5},), {"step": 1}),
        ("end_run", (), {}),
        ("start_run", (), {"run_id": "run-1", "run_name": "my-run"}),
        ("log_metrics", ({"loss": 0.5},), {"step": 8}),
        ("end_run", (), {}),
    ]


def test_tensorboard_takes_back_the_steps_after_the_checkpoint(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def losses():
        events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("loss")]

    first = Trackers(["tensorboard"], "my-run", tmp_path, CONFIG, message=pytest.fail)
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step), "grad_norm": math.nan})
    first.close()
    assert losses() == [(1, 1.0), (2, 2.0), (3, 3.0)]
    resumed = Trackers(["tensorboard"], "my-run", tmp_path, CONFIG, start_step=1, message=pytest.fail)
    resumed.log(2, {"loss": 20.0})
    resumed.close()
    assert losses() == [(1, 1.0), (2, 20.0)]
    assert first.failures == {"tensorboard": 0}


class Failing:
    """A tracker of which everything fails but its beginning."""

    run_id = None

    def __init__(self, run):
        self.run = run

    def log(self, step, logs):
        raise ConnectionError("no route\nto host")

    def close(self):
        raise KeyError("closed")


def test_a_tracker_that_fails_is_reported_once_and_counted(libraries, tmp_path, monkeypatch):
    monkeypatch.setitem(trackers_module.TRACKERS, "mlflow", Failing)
    messages = []
    trackers = Trackers(["mlflow", "wandb"], "my-run", tmp_path, CONFIG, message=messages.append)
    for step in (1, 2):
        trackers.log(step, {"loss": 0.5})
    trackers.close()
    assert messages == ["mlflow failed (ConnectionError: no route to host); training goes on, and metrics.jsonl has everything."]
    assert trackers.failures == {"mlflow": 3, "wandb": 0}
    assert [name for name, _, _ in libraries.calls] == ["init", "log", "log", "finish"]


def test_a_tracker_that_cannot_begin_is_an_error_and_ends_those_that_began(libraries, tmp_path, monkeypatch):
    def refuse(run):
        raise RuntimeError("not logged in: " + "x" * 300)

    monkeypatch.setitem(trackers_module.TRACKERS, "mlflow", refuse)
    with pytest.raises(TrackerError) as error:
        Trackers(["wandb", "mlflow"], "my-run", tmp_path, CONFIG, message=pytest.fail)
    assert str(error.value) == ("mlflow cannot begin a run (RuntimeError: not logged in: …); set it up, or leave it out of report_to.")
    assert [name for name, _, _ in libraries.calls] == ["init", "finish"]


def test_no_trackers_leave_no_trace(tmp_path):
    trackers = Trackers([], "my-run", tmp_path / "run", CONFIG, message=pytest.fail)
    trackers.log(1, {"loss": 0.5})
    trackers.close()
    assert not (tmp_path / "run").exists()
