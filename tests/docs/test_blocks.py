"""Every block of README.md and docs/ is run, in order, in a folder of its page; those that cannot run here are read."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from burnish.cli import main as cli
from burnish.cli.demo import write_jsonl
from burnish.demo import load_path, make_pairs, make_rows
from tests.docs.pages import DRAWINGS, OPERATORS, PAGES, REASONS, ROOT, RUN, Block, blocks, burnish_words, commands, fates, name_of
from tests.docs.reading import parse

SHELL = ("bash", "sh", "console")
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHOWN = ("text", "json", "jsonl", "jinja")
NOT_RUN = {
    "README.md": 1,
    "CONTRIBUTING.md": 1,
    "docs/durability.md": 1,
    "docs/first-run.md": 1,
    "docs/index.md": 1,
    "docs/preferences.md": 2,
    "docs/report.md": 1,
    "docs/rewards.md": 1,
    "docs/scaling.md": 4,
    "docs/vllm.md": 2,
}
"""Page → its blocks that are not run."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a page's blocks run: `burnish` is this environment's, the hub's and make's model the embedded one, make's rows a few sums."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for model in (HUB_ID, "models/smollm2"):
        (tmp_path / model).parent.mkdir()
        (tmp_path / model).symlink_to(load_path())
    for split, name in (("train", "train"), ("test", "test"), ("test", "valid")):
        write_jsonl(tmp_path / "models" / "dialogues" / f"{name}.jsonl", make_rows(8, seed=0, split=split))
        write_jsonl(tmp_path / "models" / "preferences" / "replies" / f"{name}.jsonl", make_pairs(8, seed=0, split=split))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # what a page starts computes as this process does
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if name_of(page) not in DRAWINGS], ids=name_of)
def test_blocks(page, folder):
    printed, names = "", {"__name__": page.stem}
    for block in blocks(page):
        if block.word == "norun":
            assert block.fate in REASONS, (
                f"{block.where}: {block.fate!r} is no reason for a block not to be run; there are {', '.join(REASONS)}."
            )
            read(block)
        elif block.word == "output":
            check_output(block, printed)
        elif block.word == "file":
            (folder / block.note).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.note).write_text(block.text, encoding="utf-8")
        if block.language == "yaml" and block.word != "norun":
            (folder / ".block.yaml").write_text(block.text, encoding="utf-8")
            parse(["grpo" if "reward_funcs:" in block.text else "sft", "--config", str(folder / ".block.yaml")], block.where)
        elif block.language in RUN and block.word in (None, "short", "fails"):
            printed = run(block, names)
        else:
            assert block.language in RUN + SHOWN, f"{block.where}: name the block's language; known are {', '.join(RUN + SHOWN)}."


def run(block: Block, names: dict[str, object]) -> str:
    """What the block prints, errors too."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = run_python(block, names) if block.language == "python" else run_shell(block, out)
    except Exception as error:
        raise AssertionError(f"{block.where} raised {type(error).__name__}: {error}\n{out.getvalue()}") from error
    assert (status != 0) == (block.word == "fails"), f"{block.where} ended with status {status}:\n{out.getvalue()}"
    return out.getvalue()


def run_python(block: Block, names: dict[str, object]) -> int:
    exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), names)
    return 0


def run_shell(block: Block, out: io.StringIO) -> int:
    """Commands of `burnish` alone run in this process, which spares each the imports."""
    lines = commands(block)
    plain = all(not OPERATORS & set(words) and "--devices" not in words and _is_plain(words[0]) for words in lines)
    if plain and "$" not in block.text:
        with contextlib.chdir("."):  # a `cd` is over with its block
            return next((status for words in lines if (status := run_plain(words, block))), 0)
    assert block.word != "short", f"{block.where}: only commands of burnish can be cut short."
    script = block.text if block.language != "console" else "\n".join(re.findall(r"^\$ (.*)$", block.text, re.MULTILINE))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    out.write(done.stdout + done.stderr)
    return done.returncode


def _is_plain(word: str) -> bool:
    return word == "cd" or word.rpartition("/")[2] == "burnish"


def run_plain(words: list[str], block: Block) -> int:
    if words[0] == "cd":
        os.chdir(words[1])
        return 0
    return cli.main([*words[1:], *(["--max_steps", "2"] if block.word == "short" and words[1] in cli.METHODS else [])])


def check_output(block: Block, printed: str) -> None:
    lines = [line.strip() for line in printed.splitlines()]
    for wanted in filter(None, map(str.strip, block.text.splitlines())):
        pattern = re.escape(wanted).replace("…", ".*")
        assert any(re.fullmatch(pattern, line) for line in lines), f"{block.where}: nothing printed is {wanted!r}:\n{printed}"


def read(block: Block) -> None:
    """What can be known of a block without running it: its options, its targets of make, its Python."""
    if block.language == "python":
        compile(block.text, block.where, "exec")
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in commands(block) if block.language in SHELL else ():
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), f"{block.where}: there is no target {words[1:]}."
        elif (given := burnish_words(words)) is not None:
            parse(given, block.where)


def test_reasons_and_fates():
    """Every reason is some block's, so that the list stays as short as it can be; and most blocks are run."""
    found = fates()
    assert set(REASONS) == {fate for fate in found if fate not in ("run", "run short", "shown")}
    assert found["run"] + found["run short"] > 5 * sum(found[reason] for reason in REASONS)


def test_blocks_that_are_not_run_are_counted():
    """A block that no test runs is a promise on trust: another one is written down here on purpose."""
    assert Counter(block.page for page in PAGES for block in blocks(page) if block.word == "norun") == NOT_RUN
