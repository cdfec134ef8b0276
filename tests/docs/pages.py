"""The blocks of a page, and what the comment above each says of it.

<!-- norun: why -->       not run here; its flags are parsed, its Python compiled; why: one of `REASONS`, and more behind a semicolon
<!-- short -->            run, but that trainings end after two steps
<!-- fails -->            a command that is refused
<!-- file: name -->       written to a file of that name
<!-- output -->           lines that the block before has printed; … stands for anything
<!-- setup python … -->   runs, and is not shown (likewise `setup bash`)
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = sorted(ROOT.glob("src/burnish/experimental/*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")), *ENTRIES]
DRAWINGS = {"docs/design.md"}
"""Pages whose blocks are drawings."""
RUN = ("python", "yaml", "bash", "sh", "console")
"""Languages of blocks that are run; a block of YAML is read as a configuration."""
REASONS = {
    "takes minutes": "the parts of what it runs are tested elsewhere",
    "downloads a model": "CI does so once, for the tests on a real model",
    "needs a package that CI does not install": "",
    "needs GPUs": "CI has none",
    "needs several machines": "CI has one",
    "needs a Slurm cluster": "CI has none",
    "serves until it is stopped": "tests/report and tests/cli start and stop it",
    "needs vLLM": "a server made of the standard library stands in for it in tests/rollout",
}
"""All that may keep a block from being run, and what is done instead."""

BLOCK = re.compile(
    r"(?:^<!-- (?P<word>norun|short|fails|file|output)(?:: (?P<note>.*?))? -->\n\n?)?"
    r"^(?P<indent> *)(?P<fence>```+) *(?P<language>[\w.+-]*)(?P<rest>[^\n]*)\n(?P<body>[\s\S]*?)^(?P=indent)(?P=fence) *$"
    r"|^<!-- setup (?P<hidden>python|bash)\n(?P<setup>[\s\S]*?)^-->",
    re.MULTILINE,
)
OPERATORS = {"|", "||", "&&", "&", ";", ">", ">>", "<", "2>&1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    word: str | None = None
    """Of the comment above it."""
    note: str | None = None
    hidden: bool = False

    @property
    def where(self) -> str:
        return f"{self.page}, line {self.line}"

    @property
    def fate(self) -> str:
        """What the tests do with it: "run", "run short", "shown" (it is no code, or a file or output), or the reason why it is not run."""
        if self.word == "norun":
            return (self.note or "").partition(";")[0]
        if self.language not in RUN or self.word in ("file", "output"):
            return "shown"
        return "run short" if self.word == "short" else "run"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        hidden, start = found["hidden"], found.start("setup" if found["hidden"] else "body")
        yield Block(
            page=name_of(page),
            line=text.count("\n", 0, start) + 1,
            language=hidden or found["language"],
            text=found["setup"] if hidden else textwrap.dedent(found["body"]),
            word=found["word"],
            note=found["note"],
            hidden=hidden is not None,
        )


def fates(names: Collection[str] | None = None) -> dict[str, int]:
    """How many blocks of these pages (None: of all) meet each fate; drawings and what no reader sees aside."""
    pages = [page for page in PAGES if name_of(page) not in DRAWINGS and (names is None or name_of(page) in names)]
    seen = [block for page in pages for block in blocks(page) if not block.hidden]
    return dict(Counter(block.fate for block in seen).most_common())


def prose(page: Path) -> str:
    """The page without its blocks, its comments and the tables that a tool has made."""
    return re.sub(r"<!-- made: [\s\S]*?<!-- end -->|<!--[\s\S]*?-->", "", BLOCK.sub("", page.read_text(encoding="utf-8")))


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, as words; of a `console` block, what stands after its prompts."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def burnish_words(words: list[str]) -> list[str] | None:
    """What `burnish` is given in a command, also behind `torchrun … -m burnish`; None where it is not in it."""
    at = next((i for i, word in enumerate(words) if word.rpartition("/")[2] == "burnish"), None)
    if at is None:
        return None
    rest = words[at + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word in OPERATORS), len(rest))]
