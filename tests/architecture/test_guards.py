"""What must not enter the tree: each tried on a copy of it, against the one command of `make lint` or `make test` that stops it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tools", "docs", "recipes", "tests/api/stable.txt", "pyproject.toml", "README.md")
IMPORTS = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
SFT = "src/burnish/methods/sft.py"
STATUS = "src/burnish/experimental/profit/STATUS.toml"


@pytest.fixture
def tree(tmp_path):
    """A copy to break."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.egg-info")
    for name in COPIED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(tree, *command):
    """(exit status, all that it printed, its line breaks as spaces) of one command in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "500"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def tool(tree, name, *arguments):
    return run(tree, sys.executable, f"tools/{name}.py", *arguments)


def edit(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text, "the copy is not what this test thinks"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_copy_as_it_is_passes(tree):
    """Or what follows would show nothing."""
    assert run(tree, *IMPORTS)[0] == 0
    for name in ("status", "deprecations", "tables"):
        assert tool(tree, name)[0] == 0, name


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        (SFT, "from burnish.experimental.profit.config import ProFitConfig"),
        ("src/burnish/ops/reduce.py", "import burnish.experimental"),
        ("src/burnish/cli/main.py", "from burnish.experimental.profit import ProFitConfig"),
        ("src/burnish/__init__.py", "from burnish.experimental import profit"),
    ],
)
def test_the_core_that_imports_an_experimental_entry(tree, file, statement):
    with (tree / file).open("a") as source:
        source.write(f"\n{statement}\n")
    status, said = run(tree, *IMPORTS)
    assert status == 1
    module = file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert re.search(rf"{module} -> burnish\.experimental", said)
    assert any(
        words in said
        for words in ("promote an experimental entry before using it BROKEN", "or promote the entry BROKEN", "an import BROKEN")
    )


def test_an_entry_that_imports_the_command_line_or_another_entry(tree):
    other = tree / "src/burnish/experimental/other"
    other.mkdir()
    (other / "__init__.py").write_text("import burnish.experimental.profit.config\nimport burnish.cli.early\n")
    status, said = run(tree, *IMPORTS)
    assert status == 1
    assert "what two need is promoted first BROKEN" in said
    assert "burnish.experimental.other -> burnish.cli.early" in said


def test_a_room_without_a_place(tree):
    (tree / "src/burnish/serving").mkdir()
    (tree / "src/burnish/serving/__init__.py").touch()
    status, said = run(tree, *IMPORTS)
    assert status == 1
    assert "place a new room in `layers`" in said
    assert "not listed as layers: - burnish.serving" in said


def test_a_file_of_401_lines(tree):
    file = tree / "src/burnish/ops/long.py"
    file.write_text("a = 1\n" * 401)
    status, said = tool(tree, "check_tree", str(file))
    assert (status, said) == (1, f"{file}:401: file of 401 lines, at most 400; divide it by what it does 1 over budget in 1 files.")


def test_a_renamed_option(tree):
    edit(tree / "src/burnish/config/rows.py", "    max_length: int | None = option(", "    max_len: int | None = option(")
    status, said = tool(tree, "api")
    assert status == 1
    assert (
        "-option RowsConfig.max_length: int | None = 1024 (at_least=2) +option RowsConfig.max_len: int | None = 1024 (at_least=2)" in said
    )
    assert "run `make api` and commit the file with it" in said
    assert "gets its line in src/burnish/deprecated.py" in said
    assert tool(tree, "api", "--record")[0] == 0
    assert tool(tree, "api")[0] == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        (
            "config/train.py",
            'option(8, "Examples of one',
            'option(16, "Examples of one',
            "+option LoopConfig.batch_size: int = 16 (at_least=1)",
        ),
        ("config/train.py", '    "cosine_with_min_lr",\n', "", "-values Schedule: "),
        (
            "trainer/trainer.py",
            "def save_model(self, output_dir:",
            "def save_model(self, folder:",
            "+parameter Trainer.save_model.folder: ",
        ),
        (
            "ops/likelihood.py",
            "def nll_loss(logp_N: Tensor)",
            "def nll_loss(logp_N: Tensor, scale: float = 1.0)",
            "+parameter ops.likelihood.nll_loss.scale: float = 1.0",
        ),
        ("cli/main.py", "in about four minutes.", "in a minute.", None),
        ("cli/main.py", '"merge": Command(', '"join": Command(', "-command burnish merge: +command burnish join:"),
    ],
    ids=["default", "choice", "parameter", "algebra", "nothing", "command"],
)
def test_other_changes_of_the_surface(tree, file, old, new, line):
    tool(tree, "api", "--record")
    edit(tree / "src/burnish" / file, old, new)
    status, said = tool(tree, "api")
    assert status == (0 if line is None else 1)
    assert line is None or line in said


def test_an_expired_entry(tree):
    text = (tree / STATUS).read_text(encoding="utf-8")
    (tree / STATUS).write_text(re.sub(r"expires = .*", "expires = 2026-11-23", text))
    assert tool(tree, "status", "--today", "2026-11-23")[0] == 0
    status, said = tool(tree, "status", "--today", "2026-11-24")
    assert status == 1
    assert said == (
        f"{STATUS}: expired on 2026-11-23: promote the entry (python tools/promote.py profit), give it a new date with new evidence, "
        "or delete its folder."
    )


def test_a_method_without_a_page(tree):
    shutil.copy(tree / SFT, tree / "src/burnish/methods/ppo.py")
    status, said = tool(tree, "tables")
    assert (status, said) == (1, "docs/ppo.md: is missing; write the page of the method ppo, as docs/sft.md has it.")


def test_a_table_of_methods_that_is_not_up_to_date(tree):
    edit(tree / SFT, '"""Supervised fine-tuning: raise', '"""Supervised fine-tuning: lift')
    status, said = tool(tree, "tables")
    assert status == 1
    assert said == " ".join(
        f"{page}: its table is not what the source says; run `make api` and commit the page." for page in ("README.md", "docs/methods.md")
    )
    assert tool(tree, "tables", "--record")[0] == 0
    assert tool(tree, "tables")[0] == 0


def test_a_recipe_that_claims_what_was_not_measured(tree):
    edit(tree / "recipes/one_gpu/dpo.yaml", "# time:     not measured yet", "# time:     an hour")
    status, said = tool(tree, "tables")
    assert status == 1
    assert said.endswith("recipes/one_gpu/dpo.yaml: time claims what was not measured; begin it with `not measured yet`.")


def test_a_table_of_recipes_that_is_not_up_to_date(tree):
    edit(tree / "recipes/laptop/sft.yaml", "5 GB", "6 GB")
    status, said = tool(tree, "tables")
    assert (status, said) == (1, "docs/recipes.md: its table is not what the source says; run `make api` and commit the page.")
    assert tool(tree, "tables", "--record")[0] == 0
    assert tool(tree, "tables")[0] == 0


def test_a_method_that_is_not_in_the_table_of_laws(tree):
    """With the tests of the copy, which take the copy's methods."""
    for name in ("tests/__init__.py", "tests/laws", "tests/models"):
        place = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        place(ROOT / name, tree / name)
    shutil.copy(tree / SFT, tree / "src/burnish/methods/ppo.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/laws/test_table.py", "-k", "every_method"]
    status, said = run(tree, *command)
    assert status == 1
    assert "tests/laws/methods.py has no case of ppo; add one for each loss, so that every law binds it." in said


def test_a_deprecated_name_whose_time_has_come(tree):
    line = 'Deprecated(old="SFTConfig.max_len", new="SFTConfig.max_length", since="0.0.1", removed_in="0.1.0")'
    edit(tree / "src/burnish/deprecated.py", "DEPRECATED: tuple[Deprecated, ...] = ()", f"DEPRECATED = ({line},)")
    status, said = tool(tree, "deprecations")
    assert status == 1
    sentence = "SFTConfig.max_len was to go in 0.1.0 and this is 0.1.0: delete the line, and what keeps the name working."
    assert said == f"src/burnish/deprecated.py: {sentence}"
