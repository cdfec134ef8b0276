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

from burnish.cli import experimental
from burnish.cli import main as cli
from burnish.demo import load_path
from tests.docs.pages import DRAWINGS, OPERATORS, PAGES, ROOT, Block, blocks, burnish_words, commands, name_of

SHELL = ("bash", "sh", "console")
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
RUN = ("python", "yaml", *SHELL)
SHOWN = ("text", "json", "jsonl", "jinja")
NOT_RUN = {
    "README.md": 1,
    "CONTRIBUTING.md": 1,
    "docs/durability.md": 1,
    "docs/first-run.md": 3,
    "docs/index.md": 1,
    "docs/preferences.md": 1,
    "docs/report.md": 1,
    "docs/rewards.md": 1,
    "docs/scaling.md": 4,
    "docs/vllm.md": 2,
}
"""Page → its blocks that are not run."""


class ParsedError(Exception):
    """Raised in place of running a command whose options were right."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a page's blocks run: `burnish` is this environment's, and the hub's model the embedded one."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / HUB_ID).parent.mkdir()
    (tmp_path / HUB_ID).symlink_to(load_path())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # what a page starts computes as this process does
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if name_of(page) not in DRAWINGS], ids=name_of)
def test_blocks(page, folder):
    printed, names = "", {"__name__": page.stem}
    for block in blocks(page):
        if block.word == "norun":
            assert block.note, f"{block.where}: a block that is not run says why."
            read(block)
        elif block.word == "output":
            check_output(block, printed)
        elif block.word == "file":
            (folder / block.note).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.note).write_text(block.text, encoding="utf-8")
        if block.language == "yaml" and block.word != "norun":
            (folder / ".block.yaml").write_text(block.text, encoding="utf-8")
            parse(["grpo" if "reward_funcs:" in block.text else "sft", "--config", str(folder / ".block.yaml")], block)
        elif block.language in RUN and block.word in (None, "fails"):
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
    plain = all(words[0] == "burnish" and "--devices" not in words and not OPERATORS & set(words) for words in lines)
    if plain and "$" not in block.text:
        return next((status for words in lines if (status := cli.main(words[1:]))), 0)
    script = block.text if block.language != "console" else "\n".join(re.findall(r"^\$ (.*)$", block.text, re.MULTILINE))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    out.write(done.stdout + done.stderr)
    return done.returncode


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
            parse(given, block)


def parse(given: list[str], block: Block) -> None:
    """Checks options as the command would, and runs nothing."""
    plain = experimental.parse

    def only(*args, **options):
        plain(*args, **options)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        for module in (cli, experimental):
            patch.setattr(module, "parse", only)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(ParsedError):
            assert cli.main(given) == 0, f"{block.where}: burnish {' '.join(given)} is refused: {said.getvalue()}"
            assert {"--help", "--version"} & set(given), f"{block.where}: burnish {' '.join(given)} parses no options."


def test_blocks_that_are_not_run_are_counted():
    """A block that no test runs is a promise on trust: another one is written down here on purpose."""
    assert Counter(block.page for page in PAGES for block in blocks(page) if block.word == "norun") == NOT_RUN
