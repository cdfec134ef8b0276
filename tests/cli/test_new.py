"""`burnish new`: what is written, that it trains as it stands, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.docs.pages import Block, burnish_words, commands
from tests.docs.reading import parse

from burnish.cli import new
from burnish.cli.main import METHODS, main
from burnish.config.new import Method, NewConfig
from burnish.config.yaml_file import load
from burnish.demo import score

SCORERS = ("reward", "prm")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read_rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def options_of(text):
    """The options that stand between "The five options" and "How long", each with the comment above its paragraph."""
    _, _, rest = text.partition("# The five options that matter most.\n")
    paragraphs = rest.partition("# How long, and what is kept.")[0].strip().split("\n\n")
    return [(one.startswith("# "), list(yaml.safe_load(one))) for one in paragraphs]


def shell_lines(readme):
    blocks = re.findall(r"^```sh\n([\s\S]*?)^```$", readme, re.MULTILINE)
    return [words for text in blocks for words in commands(Block(page="README.md", line=1, language="sh", text=text))]


def test_it_knows_every_stable_method():
    assert set(Method.__args__) == set(METHODS) == set(new.PACES)


@pytest.mark.parametrize("method", METHODS)
def test_a_project_trains_as_it_stands(method, capsys, monkeypatch):
    """Inspected, warmed up where it is to be, trained for two steps and looked at, by the commands of its README."""
    assert main(["new", "sums", "--method", method]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"sums is ready: 2,000 rows for {method}, and the small model that comes with Burnish.\n\n  cd sums\n  burnish ")
    assert sorted(os.listdir()) == ["sums"]
    monkeypatch.chdir("sums")
    for path in Path("data").iterdir():
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    short = ["--max_steps", "2", "--batch_size", "2"]
    ran = []
    for words in shell_lines(Path("README.md").read_text()):
        if words[0] == "burnish" and "runs/second" not in words:  # which is the same once more, and parsed below
            ran.append(words[1])
            assert main([*words[1:], *(short if words[1] in METHODS else [])]) == 0, capsys.readouterr().err
    warmed = ["sft"] if method in new.ONLINE else []
    looked = [] if method in SCORERS else ["inspect" if method in new.ONLINE else "generate"]
    assert ran == [*warmed, "inspect", method, *looked, "report"]
    lines = read_rows("runs/first/metrics.jsonl")
    assert max(line["step"] for line in lines) == 2
    assert any("eval_" in name for line in lines for name in line)


@pytest.mark.parametrize("model", ["demo", "org/model"])
@pytest.mark.parametrize("method", METHODS)
def test_five_options_say_why(method, model, capsys):
    """Each stands in a paragraph of its own under a comment; with a weight beside it, reward_funcs stands for both."""
    assert main(["new", "sums", "--method", method, "--model", model]) == 0
    text = Path("sums/config.yaml").read_text()
    found = options_of(text)
    names = [name for _, names in found for name in names if name not in ("reward_weights",)]
    assert len(names) == 5
    assert all(commented for commented, _ in found)
    assert text.count("learning_rate: ") == 1
    parse([method, "--config", "sums/config.yaml"], method)
    for words in shell_lines(Path("sums/README.md").read_text()):
        if given := burnish_words(words):
            parse([word.replace("config.yaml", "sums/config.yaml") for word in given if word != "warmup.yaml"] if "warmup.yaml" not in given
                  else ["sft", "--config", "sums/warmup.yaml"], method)  # fmt: skip
    assert not re.search(r"\{[{%]|\n\n\n", text + Path("sums/README.md").read_text())
    assert (model == "demo") == Path("sums/model").is_dir()


def test_a_hub_model_has_the_methods_own_learning_rate():
    """DPO's default is 1e-6. Nothing is copied, and no warm-up is needed."""
    assert main(["new", "sums", "--method", "dpo", "--model", "org/model"]) == 0
    options = yaml.safe_load(Path("sums/config.yaml").read_text())
    assert options["model_name_or_path"] == "org/model"
    assert float(options["learning_rate"]) == 1e-6
    assert sorted(os.listdir("sums")) == [".gitignore", "README.md", "config.yaml", "data"]
    assert main(["new", "asked", "--method", "grpo", "--model", "org/model"]) == 0
    assert sorted(os.listdir("asked")) == [".gitignore", "README.md", "config.yaml", "data", "rewards.py"]


def test_a_local_model_is_named_by_its_whole_path(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "llama"}')
    assert main(["new", "sums", "--model", "mine"]) == 0
    assert yaml.safe_load(Path("sums/config.yaml").read_text())["model_name_or_path"] == str((tmp_path / "mine").resolve())


def test_a_path_that_yaml_would_read_otherwise(tmp_path):
    """What is behind the # would be a comment, and before the colon a name."""
    folder = tmp_path / "mine: 'ä' # 2 🙂"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert main(["new", "sums", "--model", str(folder)]) == 0
    assert load(Path("sums/config.yaml"))[0]["model_name_or_path"] == str(folder)


def test_no_question_is_in_both_sets():
    rows = {split: new.sample_rows("sft", 100, split) for split in ("train", "test")}
    asked = {split: {row["messages"][0]["content"] for row in found} for split, found in rows.items()}
    assert not asked["train"] & asked["test"]


def test_steps_are_wrong_from_the_first_wrong_one_on():
    """Of 38+47=78+7=85 and 38+47=78+7=75 the steps are 38+47, 78+7 and the result; with the other sign all three are wrong."""
    rows = new.sample_rows("prm", 400, "train")
    assert {tuple(row["labels"]) for row in rows} == {(True, True, True), (True, True, False), (False, False, False)}
    assert sum(all(row["labels"]) for row in rows) == 200  # every other one
    pair = {"prompt": [{"content": "a"}], "chosen": [{"content": "1=2=3"}], "rejected": [{"content": "1=4=3"}]}
    assert [row["labels"] for row in new._in_steps([pair, pair])] == [[True, True, True], [True, False, False]]


def test_labels_say_whether_an_answer_is_right():
    rows, pairs = new.sample_rows("kto", 200, "train"), new.sample_rows("dpo", 200, "train")
    for row, pair in zip(rows, pairs, strict=True):
        assert row["completion"] == pair["chosen" if row["label"] else "rejected"]
    assert 80 < sum(row["label"] for row in rows) < 120


def test_the_rewards_of_the_template():
    """ "47+38=77+8=85" is right where the answer is 85; an answer that was cut off is not finished."""
    from burnish.cli.project import rewards
    from burnish.rewards.samples import Sample

    def sample(text, reason="stop"):
        return Sample(prompt="", completion=text, completion_ids=[1], finish_reason=reason, columns={"answer": "85"})

    for text in ("47+38=77+8=85", "85", "It is 85.", "47+38=77+8=86", "", "-85", "850"):
        assert rewards.right(sample(text)) == float(score(text, {"answer": "85"}))
    assert [rewards.finished(sample("85", reason)) for reason in ("stop", "length")] == [1.0, 0.0]


REFUSED = {
    "a name that is none": (["-x"], "option"),
    "no name": ([], "burnish new needs the name of a folder to make, such as: burnish new my-project."),
    "spaces": (["my project"], "project='my project' must end with a name of letters, digits, '.', '_' and '-', such as my-project."),
    "this folder": (["."], "project='.' must end with a name"),
    "a folder with something in it": (
        ["full"],
        "project='full' is there already and holds 'a.txt'; name another folder, nothing is overwritten.",
    ),
    "a file": (["file"], "project='file' is a file; name a folder that is not there yet."),
    "no such parent": (["no/where"], "project='no/where' cannot be made, because there is no folder "),
    "an unknown method": (["sums", "--method", "ppo"], "method must be 'sft', 'dpo',"),
    "a path that is not there": (["sums", "--model", "./mine"], "model='./mine' is no folder and no hub id; give one such as"),
    "a folder without a model": (
        ["sums", "--model", "full"],
        "model='full' must be a folder that holds config.json, and this one does not.",
    ),
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_sentence(words, sentence, capsys):
    Path("full").mkdir()
    Path("full/a.txt").touch()
    Path("file").touch()
    assert main(["new", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert sorted(os.listdir()) == ["file", "full"]
    assert os.listdir("full") == ["a.txt"]


def test_an_empty_folder_is_filled():
    Path("sums").mkdir()
    assert main(["new", "sums"]) == 0
    assert Path("sums/config.yaml").is_file()
    assert Path("sums").stat().st_mode & 0o777 == 0o777 & ~new._umask()


def test_all_or_nothing(monkeypatch, capsys):
    """A disk that is full at the last file leaves no half of a project."""

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new.shutil, "copytree", full)
    assert main(["new", "sums"]) == 2
    assert "project='sums' cannot be made (No space left on device)" in capsys.readouterr().err
    assert os.listdir() == []


def test_a_folder_that_cannot_be_made(monkeypatch, capsys):
    def none(*args, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(new.tempfile, "mkdtemp", none)
    assert main(["new", "sums"]) == 2
    assert capsys.readouterr().err == "error: project='sums' cannot be made (Read-only file system); name another folder.\n"


def test_torch_is_not_imported():
    code = "import sys; from burnish.cli.main import main; sys.exit(main(['new', 'sums', '--method', 'grpo']) or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_default_is_sft_with_the_embedded_model():
    made = NewConfig(project="sums")
    assert (made.method, made.model) == ("sft", "demo")
