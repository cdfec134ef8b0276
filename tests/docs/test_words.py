"""What the documentation names is there: options, files, pages, sections, functions; and what is made from the code is whole."""

from __future__ import annotations

import html
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from burnish.config import (
    BCOConfig,
    CPOConfig,
    DataConfig,
    DPOConfig,
    GRPOConfig,
    KTOConfig,
    ModelConfig,
    ORPOConfig,
    PRMConfig,
    RewardConfig,
    RLOOConfig,
    SFTConfig,
)
from burnish.config.base import options, rules
from tests.docs.pages import PAGES, ROOT, blocks, name_of, prose

COPIED = {"docs/design.md"}
"""Speaks of what is planned."""
ROOMS = ("", "src/burnish", "src/burnish/methods", "docs", "tests", "tests/laws")
"""Where a file that is named in short may stand."""
MADE = {"config.yaml", "rewards.py", "run.yaml", "resolved.yaml", "trainer_state.json", "loop_state.json"}
"""Files that a reader or a run makes."""
FOREIGN = {"DatasetConfig"}
"""Names of other libraries that the source does not mention."""
ARGUMENTS = {"fp32_precision", "optimizers"}
"""Names before `=` that are no options: arguments and settings of other libraries."""
OTHERS = {
    "help",
    "version",
    "nnodes",
    "nproc-per-node",
    "rdzv-backend",
    "rdzv-endpoint",
    "rdzv-id",
    "max-restarts",
    "node-rank",
    "standalone",
    "signal",
}
"""Flags of every command, of torchrun and of sbatch."""


@cache
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def known_options() -> frozenset[str]:
    classes = [cls for classes in hooks().command_classes().values() for cls in classes]
    benches = {flag for file in ROOT.glob("bench/*.py") for flag in re.findall(r'"--([\w-]+)"', file.read_text(encoding="utf-8"))}
    return frozenset(name for cls in classes for name in (*options(cls), *rules(cls))) | benches | {"config", "devices"}


def spans(page: Path) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def checked(page: Path) -> bool:
    return name_of(page) not in COPIED


@pytest.mark.parametrize("page", filter(checked, PAGES), ids=name_of)
def test_options_exist(page):
    """`--learning_rate`, `learning_rate: 1e-4` and `learning_rate=1e-4`."""
    for span in spans(page):
        for flag in re.findall(r"(?<!\S)--([a-z][\w-]*)", span):
            spellings = {flag, flag.replace("-", "_"), flag.removeprefix("no_")}
            assert spellings & (known_options() | OTHERS), f"{name_of(page)}: no option `{span}`"
        if said := re.fullmatch(r"([a-z]\w+)(?:: |=)\S+", span):
            assert said[1] in known_options() | ARGUMENTS, f"{name_of(page)}: no option `{span}`"


@cache
def words_of_source() -> frozenset[str]:
    return frozenset(word for file in ROOT.glob("src/burnish/**/*.py") for word in re.findall(r"\w+", file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", filter(checked, PAGES), ids=name_of)
def test_names_exist(page):
    """`max_length`, `tokens_per_second`, `SFTTrainer`: options, metrics, columns, classes."""
    names = [span for span in spans(page) if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+|([A-Z][a-z]+|[A-Z]{2,})[A-Z]\w*[a-z]\w*", span)]
    unknown = [name for name in names if name.removeprefix("eval_") not in known_options() | words_of_source() | FOREIGN]
    assert not unknown, f"{name_of(page)}: nothing in src/burnish is called {', '.join(unknown)}"


@pytest.mark.parametrize("page", filter(checked, PAGES), ids=name_of)
def test_files_exist(page):
    for span in spans(page):
        if re.fullmatch(r"[\w./-]+\.(py|md|toml|txt|yaml|yml)|(src|tests|docs|bench|recipes)/[\w./-]*|tools/([\w-]+\.\w+)?", span):
            name = Path(span.rstrip("/"))
            made = name.name in MADE or name.parts[0] == "runs"
            assert made or any((ROOT / room / name).exists() for room in ROOMS), f"{name_of(page)}: there is no `{span}`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"https?:", target):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name_of(page)}: the link to {target} leads nowhere"
        assert not anchor or anchor in anchors(there), f"{name_of(page)}: {path or 'the page'} has no section #{anchor}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", hooks().fill(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_markers_are_made(page):
    filled = hooks().fill(page.read_text(encoding="utf-8"))
    assert "<!-- make" not in filled
    assert not re.search(r"^<!-- (norun|short|fails|file|output|setup)", filled, re.MULTILINE)


def test_every_comment_above_a_block_is_understood():
    """A misspelled `norun` would run its block, and a misspelled `setup` would not run its own."""
    for page in PAGES:
        above = re.findall(r"^<!-- (?!setup )[^>]*-->(?=\n\n?```)|^<!-- [^>]*\n[\s\S]*?-->", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(above) == sum(block.word is not None or block.hidden for block in blocks(page)), f"{name_of(page)}: {above}"


def test_every_page_is_in_the_navigation():
    import yaml

    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- .+: ([\w-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs"))
    assert yaml.safe_load(text)["strict"] is True


def test_the_options_page_has_every_option_once():
    """In the table of the class that introduces it, and of those that give it another default."""
    made = hooks().make_options()
    titles, tables = zip(*re.findall(r"^### (\w+)\n\n.*\n\n((?:\|.*\n)+)", made, re.MULTILINE), strict=True)
    assert len(titles) == len(set(titles)) == made.count("\n### ")
    listed = {title: re.findall(r"^\| `(\w+)` \|", one, re.MULTILINE) for title, one in zip(titles, tables, strict=True)}
    assert all(len(names) == len(set(names)) for names in listed.values())
    methods = (SFTConfig, DPOConfig, KTOConfig, ORPOConfig, CPOConfig, BCOConfig, RewardConfig, PRMConfig, GRPOConfig, RLOOConfig)
    every = {name for cls in (ModelConfig, DataConfig, *methods) for name in options(cls)}
    assert {name for names in listed.values() for name in names} >= {*every, "rows", "adapter"}
    assert "| `learning_rate` | a number above 0 | `2e-05` | Peak learning rate. |" in tables[titles.index("SFT")]
    assert "| `learning_rate` | a number above 0 | `1e-06` | Peak learning rate. |" in tables[titles.index("DPO")]


def test_the_page_about_trl_has_every_old_spelling():
    page = (ROOT / "docs/migrate-from-trl.md").read_text(encoding="utf-8")
    classes = (
        ModelConfig,
        DataConfig,
        SFTConfig,
        DPOConfig,
        KTOConfig,
        RewardConfig,
        GRPOConfig,
        RLOOConfig,
        CPOConfig,
        ORPOConfig,
        BCOConfig,
        PRMConfig,
    )
    listed = set(re.findall(r"^\| `(\w+)`(?: \([\w, ]+\))? \|", page, re.MULTILINE))
    assert {name for cls in classes for name in rules(cls)} <= listed


def test_a_page_that_would_fetch_from_elsewhere_is_refused():
    page = type("Page", (), {"file": type("File", (), {"src_path": "a.md"})})
    with pytest.raises(ValueError, match="a.md would fetch .*bring it into docs/"):
        hooks().on_post_page('<p><script src="https://elsewhere.example/a.js"></script></p>', page)
    assert hooks().on_post_page('<a href="https://elsewhere.example">', page) == '<a href="https://elsewhere.example">'


def test_a_function_is_shown_as_it_is():
    shown = hooks().make_code("burnish.ops.likelihood.nll_loss")
    assert shown.startswith('```python title="src/burnish/ops/likelihood.py, line ')
    assert shown.endswith("def nll_loss(logp_N: Tensor) -> Tensor:\n    return -logp_N\n```")
    assert html.escape(shown, quote=False).count("-&gt;") == 1
