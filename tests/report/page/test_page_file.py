"""The file: all in one, nothing of a run in it as markup, written whole or not at all."""

import base64
import gzip
import hashlib
import json
import os
import re

import pytest
from tests.pages import HOSTILE, make_run, sample, write_samples

from burnish.report.page.page import ASSETS, OWN, packed, page_of, phases_of, write_report
from burnish.report.page.runs import PageError

LIBRARY = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def block(page, name):
    (found,) = re.findall(rf'<script type="text/plain" id="{name}">([A-Za-z0-9+/=]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(found)))


def test_all_of_a_run_is_in_the_page(tmp_path):
    page = write_report([make_run(tmp_path / "one")], tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    record = block(page, "run-0")
    assert record["series"]["reward"] == [[1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]]
    assert record["series"]["eval_new_accuracy_stderr"] == [[4], [0.1]]
    (index,) = block(page, "index-0")
    assert len(index["step"]) == 4 * 3 * 2
    assert block(page, "tokens-0-0")["samples"][1]["t"] == [1, 2, 3, 4]
    assert block(page, "vocabulary-0")["tokens"] == {"0": "<s>", "1": "a", "2": " b", "3": " \xc3", "4": "\xa4"}
    assert block(page, "runs") == {"names": ["one"], "live": False}


def test_nothing_is_fetched(tmp_path):
    page = page_of([make_run(tmp_path / "one")])
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "@import" not in page
    assert "connect-src 'none'" in page


def test_scripts_that_may_run_are_those_of_the_page(tmp_path):
    page = page_of([make_run(tmp_path / "one")])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_nothing_that_a_run_says_is_markup(tmp_path):
    """In a file's name, in options, metrics, events, prompts, completions and reasons."""
    folder = make_run(tmp_path / "a<b> & c", options=f"model_name_or_path: {json.dumps(HOSTILE)}\n{json.dumps(HOSTILE)}: 1\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 9, HOSTILE: 1.0}) + "\n")
    failed = {HOSTILE: {"failure": HOSTILE, "detail": HOSTILE}}
    write_samples(folder, [[sample(9, HOSTILE, prompt=HOSTILE, completion=HOSTILE, rewards=failed, name=HOSTILE)]])
    page = page_of([folder])
    assert "onerror" not in page
    assert page.count("<script") == page.count("</script>")
    assert "<title>a&lt;b&gt; &amp; c · Burnish</title>" in page
    assert block(page, "run-0")["model"] == HOSTILE


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    run = make_run(tmp_path / "one")
    with pytest.raises(PageError, match="empty is no run"):
        write_report([run, tmp_path / "empty"], tmp_path / "out" / "page.html")
    assert not (tmp_path / "out").exists()
    with pytest.raises(PageError, match="is a folder; name a file"):
        write_report([run], tmp_path / "empty")
    with pytest.raises(PageError, match="No run is named"):
        write_report([], tmp_path / "page.html")
    (tmp_path / "file").touch()
    with pytest.raises(PageError, match="cannot be written"):
        write_report([run], tmp_path / "file" / "page.html")


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """Where it is a disk that fails in the middle of one, the error names none."""
    run, given = make_run(tmp_path / "one"), [(13, "Permission denied", str(tmp_path / "one" / "events.jsonl")), (5, "Input/output error")]

    def fails(path):
        raise OSError(*given.pop(0))

    monkeypatch.setattr("burnish.report.page.runs.read_events", fails)
    for said in (f"{run}/events.jsonl cannot be read (Permission denied)", "A file of a run cannot be read (Input/output error)"):
        with pytest.raises(PageError) as refused:
            write_report([run], tmp_path / "page.html")
        assert str(refused.value) == f"{said}; see who may read it."
    assert not (tmp_path / "page.html").exists()


def test_text_that_is_no_unicode(tmp_path):
    """Half an emoji in a sample, and a folder whose name is not UTF-8."""
    run = make_run(tmp_path / os.fsdecode(b"caf\xe9"))
    (run / "samples" / "00000.jsonl.gz").unlink()
    write_samples(run, [[sample(9, extras={"said": "\ud83d"})]])
    page = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert block(page, "runs")["names"] == ["caf\udce9"]
    assert block(page, "tokens-0-0")["samples"][0]["extras"] == {"said": "\ud83d"}
    assert b"caf\\udce9" in page_of([run], live=True).encode("utf-8", "backslashreplace")


def test_numbers_that_are_not_finite_are_text(tmp_path):
    run = make_run(tmp_path / "one", options="reward_kwargs: {right: {limit: .inf}}\n")
    assert block(page_of([run]), "run-0")["config"] == {"reward_kwargs": {"right": {"limit": "inf"}}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        packed({"limit": float("inf")})


def test_an_earlier_report_is_replaced_and_nothing_else_is_left(tmp_path):
    run, output = make_run(tmp_path / "one"), tmp_path / "page.html"
    output.write_text("old")
    assert write_report([str(run)], str(output)) == output
    assert output.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "page.html"]


def test_a_torn_end_of_the_samples_is_said(tmp_path):
    run = make_run(tmp_path / "one")
    path = run / "samples" / "00000.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])
    (said,) = block(page_of([run]), "run-0")["missing"]
    assert said.startswith("00000.jsonl.gz is whole up to byte ")


def test_a_run_with_nothing_in_it_yet(tmp_path):
    (tmp_path / "events.jsonl").write_text("")
    record = block(page_of([tmp_path]), "run-0")
    assert record["series"] == {}
    assert any("nothing was logged yet" in one for one in record["missing"])


def test_the_library_that_draws_is_the_one_that_is_noted():
    notice = (ASSETS / "NOTICE").read_text()
    for name, digest in LIBRARY.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
        assert digest in notice
    assert "Permission is hereby granted" in (ASSETS / "uPlot.LICENSE").read_text()


def test_no_script_makes_markup_of_data():
    for name in OWN:
        text = (ASSETS / name).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), name
        assert len(text.splitlines()) <= 400, name


def test_phases():
    """1,000 tokens at 50 a second are 20 s, in 4 steps of which 2 begin a sampling of 1.5 s: 3 s are sampling, 17 training. A save of 2 s;
    text in a number's place is no number."""
    head = {"config": {"num_iterations": 2}, "events": [{"event": "save", "seconds": 2.0}, {"event": "save"}, {"event": "start"}]}
    lines = [
        {"step": 4, "num_tokens": 1000, "tokens_per_second": 50.0, "time/sampling": 1.5, "loss": "nan"},
        {"step": 4, "eval_runtime": 0.5, "eval_loss": 1.0},
    ]
    assert phases_of(head, lines) == pytest.approx({"sampling": 3.0, "scoring": 0.0, "training": 17.0, "evaluation": 0.5, "saving": 2.0})
