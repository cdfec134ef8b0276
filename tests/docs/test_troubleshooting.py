"""docs/troubleshooting.md quotes Burnish: every quoted sentence is in the source, and every pain has its thread and its cure."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^> (.+)$", PAGE, re.MULTILINE)
ENTRIES = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]


@cache
def said() -> str:
    """Every text of the source, a line each, with … for what is filled in."""
    lines = []
    for file in sorted((ROOT / "src/burnish").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                lines.append("".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                lines.append(re.sub(r"\{[a-z_]+(:[^{}]*)?\}", "…", node.value))
    return "\n".join(" ".join(line.split()) for line in lines)


@pytest.mark.parametrize("sentence", QUOTED)
def test_a_quoted_sentence_is_in_the_source(sentence):
    assert sentence in said()


def test_quotations_are_found_out():
    """A word more or less is another sentence."""
    assert "The tokenizer has no EOS token, so a model would never learn to stop; name one with eos_token." in said()
    assert "The tokenizer has no EOS token, so a model might never learn to stop" not in said()
    assert "… belongs to another run (…); give this run" in said()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.partition("\n")[0])
def test_every_pain_has_a_thread_and_an_answer(entry):
    assert len(re.findall(r"\]\(https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+\)", entry)) == 1
    assert "**Here**" in entry or "**Not here" in entry
    assert "**Cure**" in entry or ENTRIES.index(entry) >= len(ENTRIES) - 11  # features that are asked for


def test_no_pain_is_missing():
    """51 are known; dtypes that change and doubled BOS tokens, one of them, have an entry each."""
    assert len(ENTRIES) == 52
