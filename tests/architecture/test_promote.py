"""tools/promote.py decides what a machine can; what it finds is tried on the entry that there is, and on faults made here."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROFIT = ROOT / "src/burnish/experimental/profit"


@pytest.fixture(scope="module")
def promote():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("promote", ROOT / "tools/promote.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["promote"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.fixture
def entry(tmp_path):
    return shutil.copytree(PROFIT, tmp_path / "profit", ignore=shutil.ignore_patterns("__pycache__"))


def append(file, text):
    with file.open("a", encoding="utf-8") as writer:
        writer.write(text)


def test_budget(promote, entry):
    assert promote.one_file(entry).verdict == "yes"
    append(entry / "method.py", "a = 1\n" * 400)
    line = promote.one_file(entry)
    assert line.verdict == "no"
    assert "at most 400" in line.reason


def test_place(promote, entry):
    """A loss of SFT may know SFT; a method of its own may not."""
    assert promote.fits(entry, "methods/sft.py").verdict == "yes"
    line = promote.fits(entry, "methods/profit.py")
    assert line == promote.Line("no", "fits its place", "imports burnish.methods.sft, which methods/profit.py may not")


def test_equations(promote, entry):
    assert promote.equations(entry) == promote.Line("yes", "equations", "eq. 4, 5 in tests")
    file = entry / "tests/test_profit.py"
    file.write_text(file.read_text(encoding="utf-8").replace("Eq. 5", "The loss"))
    assert promote.equations(entry) == promote.Line("no", "equations", "no test's docstring works eq. 5 by hand")
    (entry / "method.py").write_text('"""ProFit."""\n')
    assert promote.equations(entry).reason == "method.py's docstring numbers no equation (eq. 1)"


def test_tests(promote, tmp_path):
    (tmp_path / "tests").mkdir()
    assert promote.tests_pass(tmp_path) == promote.Line("no", "its own tests", "there is none")
    (tmp_path / "tests/test_them.py").write_text("def test_a(): pass\ndef test_b(): assert 0\n")
    assert promote.tests_pass(tmp_path) == promote.Line("no", "its own tests", "test_b failed")


def test_options(promote, tmp_path, monkeypatch):
    lines = list(promote.options_used("profit"))
    assert [line.verdict for line in lines] == ["yes"]
    assert lines[0].reason == "prob_threshold=0.01 has an effect; threshold_direction='lower' has an effect"

    from burnish.experimental.profit import method

    monkeypatch.setattr(method, "mask", lambda logp_N, threshold, direction: logp_N > -100)
    (line,) = promote.options_used("profit")
    assert line == promote.Line("no", "every option used", "prob_threshold changed nothing; threshold_direction changed nothing")
    (line,) = promote.options_used("other")
    assert line == promote.Line("no", "options", "tests/law_cases.py has no case to try them on")


def test_other_values(promote):
    from burnish.config import SFTConfig
    from burnish.config.base import options

    known = options(SFTConfig)
    assert next(promote.others(known["loss_type"], "nll")) == "dft"
    assert next(promote.others(known["assistant_only_loss"], False)) is True
    assert next(promote.others(known["max_length"], 1024)) == 2, "1 is too short"
    assert list(promote.others(known["dataset_text_field"], "text")) == [], "what it names cannot be made up"


def test_laws(promote, monkeypatch):
    """A law that failed, one that no test took, and one that does not apply."""
    of_law = promote.law_tests()
    assert set(of_law.values()) >= {"micro-batch", "ranks", "resume", "seed", "mask", "order", "export"}
    chosen = {law: next(key for key, value in of_law.items() if value == law) for law in ("micro-batch", "ranks")}
    ran = [
        promote.Test(*chosen["micro-batch"][:1], f"{chosen['micro-batch'][1]}[profit-higher]", "passed"),
        promote.Test(*chosen["ranks"][:1], f"{chosen['ranks'][1]}[lora-profit-higher]", "failed"),
    ]
    monkeypatch.setattr(promote, "run_tests", lambda arguments: ran)
    found = {line.what: line for line in promote.all_laws("profit")}
    assert found["law micro-batch"] == promote.Line("yes", "law micro-batch", "1 tests passed")
    assert found["law ranks"].verdict == found["with LoRA"].verdict == "no"
    assert found["law resume"] == promote.Line("no", "law resume", "no test took its cases")
    assert found["law silence"] == promote.Line("yes", "law silence", "does not apply: learns from no rewards")


def test_demotion_is_the_list_backwards(promote):
    found = {line.what: line for line in promote.demotion("sft")}
    assert "src/burnish/cli/demo.py imports it" in found["nothing stable uses it"].reason
    names = ("burnish.SFTConfig", "burnish.SFTTrainer", "burnish sft")
    assert found["its names were deprecated"].reason == "; ".join(f"{name} has no line in deprecated.py" for name in names)
    assert found["docs page"].reason == "docs/sft.md is to become the entry's README.md"
    assert found["an entry again"].reason == "src/burnish/experimental/sft is not there"


def test_a_name_that_is_none(promote, capsys):
    with pytest.raises(SystemExit):
        promote.main(["nothing"])
    assert "name an entry: profit" in capsys.readouterr().err
