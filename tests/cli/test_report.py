"""`burnish report`: its runs wherever they stand among the options, its refusals, and what it does not import."""

import subprocess
import sys

import pytest
from tests.pages import make_run

from burnish.cli.main import main
from burnish.cli.report import with_runs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a"], ["--runs", "a"]),
        (["a", "b", "--output", "c"], ["--output", "c", "--runs", "a", "b"]),
        (["--output", "c", "a", "b"], ["--output", "c", "--runs", "a", "b"]),
        (["--output=c", "a"], ["--output=c", "--runs", "a"]),
        (["--live", "a"], ["--live", "--runs", "a"]),
        (["a", "--live", "true", "--port", "80", "b"], ["--live", "true", "--port", "80", "--runs", "a", "b"]),
        (["--runs", "a", "b"], ["--runs", "a", "b"]),
        (["--output"], ["--output"]),
        ([], []),
    ],
)
def test_runs_are_the_words_that_belong_to_no_option(words, told):
    assert with_runs(words) == told


def test_one_run_has_its_report_beside_it(tmp_path, capsys):
    run = make_run(tmp_path / "one")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"The report is {run / 'report.html'}; open it in a browser.\n"
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_several_runs_have_it_here_or_where_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs = [str(make_run(tmp_path / name)) for name in ("one", "two")]
    assert main(["report", *runs]) == 0
    assert (tmp_path / "report.html").exists()
    assert main(["report", *runs, runs[0], "--output", "other/both.html"]) == 0
    assert "The report is other/both.html;" in capsys.readouterr().out
    assert "<title>one, two · Burnish</title>" in (tmp_path / "other" / "both.html").read_text(encoding="utf-8")


def test_one_run_is_one_however_it_is_spelled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "one")
    assert main(["report", "one", "one/", "./one"]) == 0
    assert capsys.readouterr().out == "The report is one/report.html; open it in a browser.\n"


FILES = "metrics.jsonl, events.jsonl, resolved.yaml, samples"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "burnish report needs a run; give the output_dir of one training or of several."),
        (["none"], "none is no run: there is no such folder; give the output_dir of a training."),
        (
            ["one", "."],
            f". is no run: it holds none of {FILES}; give the output_dir of a training.",
        ),
        (["one", "--port", "1"], "port=1 has no effect without live=True; add --live."),
        (["one", "--live", "--output", "x"], "output='x' has no effect with live=True, which writes no file; leave one of them out."),
        (["one", "--ouput", "x"], "burnish report has no option --ouput; the nearest is --output."),
        (["one", "--port", "99999", "--live"], "port must be an integer of at least 0 and of at most 65535, not 99999."),
    ],
)
def test_refusals_are_one_sentence_and_write_nothing(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    before = sorted(make_run(tmp_path / "one").iterdir())
    assert main(["report", *words]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
    assert sorted((tmp_path / "one").iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_neither_torch_nor_transformers_is_imported(tmp_path):
    run = make_run(tmp_path / "one")
    program = f"import sys; from burnish.cli.main import main; main(['report', {str(run)!r}])\n"
    program += "print([name for name in ('torch', 'transformers', 'datasets', 'tokenizers', 'numpy') if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
