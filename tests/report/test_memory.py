"""memory.jsonl: a line when a phase is over, the most of each phase, and a run that goes on whatever becomes of the file."""

import json

from burnish.report import memory as memory_module
from burnish.report.console import Console
from burnish.report.memory import note_memory, peaks_of
from burnish.report.reporter import Reporter
from burnish.report.samples import SampleFiles
from burnish.report.trackers import Trackers


def noted(folder):
    return [(line["step"], line["phase"], line["bytes"]) for line in map(json.loads, (folder / "memory.jsonl").read_text().splitlines())]


def test_phases_are_noted_where_they_end(tmp_path, monkeypatch):
    """Sampling, then training, then an evaluation; a run that begins anew begins its file anew, a resumed one goes on with it."""
    sizes = iter([10, 30, 20, 40, 50])
    monkeypatch.setattr(memory_module, "memory_bytes", lambda: next(sizes))

    def opened(step):
        return Reporter.open(Console(main=False), tmp_path / "metrics.jsonl", 0, step, Trackers([], "", tmp_path, {}, message=print))

    report = opened(0)
    SampleFiles(tmp_path).append([{"step": 0, "tokens": [1]}])
    report.log(1, {"loss": 1.0})
    report.evaluated(1, {"loss": 2.0}, "eval_new")
    assert noted(tmp_path) == [(0, "sampling", 10), (1, "training", 30), (1, "eval_new", 20)]
    opened(1).log(2, {"loss": 0.5})
    assert [(one["phase"], one["step"], one["bytes"]) for one in peaks_of(tmp_path / "memory.jsonl")] == [
        ("sampling", 0, 10),
        ("training", 2, 40),
        ("eval_new", 1, 20),
    ]
    opened(0).log(1, {"loss": 1.0})
    assert noted(tmp_path) == [(1, "training", 50)]


def test_torn_lines_are_left_out(tmp_path):
    (tmp_path / "memory.jsonl").write_text('{"step": 1, "phase": "a", "bytes": 5}\n[1]\n{"phase": "b"}\n{"step": 2, "pha')
    assert [one["phase"] for one in peaks_of(tmp_path / "memory.jsonl")] == ["a"]
    assert peaks_of(tmp_path / "none") == []


def test_a_run_does_not_end_because_it_cannot_be_written(tmp_path):
    (tmp_path / "memory.jsonl").mkdir()
    note_memory(tmp_path, 1, "training")
    note_memory(tmp_path / "gone", 1, "training")
