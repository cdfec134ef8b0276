"""tools/check_tree.py finds what is over budget, says where, and passes what is at its limit."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "check_tree.py"
_spec = importlib.util.spec_from_file_location("check_tree", SCRIPT)
check_tree = importlib.util.module_from_spec(_spec)
sys.modules["check_tree"] = check_tree
_spec.loader.exec_module(check_tree)


@pytest.fixture
def found(tmp_path):
    """What is over budget in a file of that text: ["line: what", …]."""

    def check(text, *, path="src/pkg/models/one.py", allowed=()):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        findings, files = check_tree.check([tmp_path], tuple(allowed))
        assert files == 1
        assert all(f.path == file.as_posix() or f.path == SCRIPT.as_posix() for f in findings)
        return [f"{f.line}: {f.what}" for f in findings]

    return check


def function(lines, header="def f():", docstring=0):
    doc = ['    """' + "x\n" * (docstring - 1) + '"""'] if docstring else []
    return "\n".join([header, *doc, *["    a = 1"] * lines]) + "\n"


def test_file_lines(found):
    assert found("a = 1\n" * 400) == []
    assert found("a = 1\n" * 401) == ["401: file of 401 lines, at most 400; divide it by what it does"]


def test_the_loop_is_one_page(found):
    assert found("a = 1\n" * 150, path="src/pkg/loop.py") == []
    assert found("a = 1\n" * 151, path="src/pkg/loop.py") == ["151: file of 151 lines, at most 150; divide it by what it does"]


def test_function_lines(found):
    assert found(function(60)) == []
    assert found("\n\n" + function(61)) == ["3: body of f has 61 lines, at most 60"]
    assert found(function(61, "async def f():")) == ["1: body of f has 61 lines, at most 60"]


def test_a_docstring_is_free_and_comments_and_inner_functions_are_not(found):
    assert found(function(60, docstring=30)) == []
    assert found(function(59) + "    # why\n    b = 1\n") == ["1: body of f has 61 lines, at most 60"]
    inner = "def f():\n    def g():\n" + "        a = 1\n" * 60
    assert found(inner) == ["1: body of f has 61 lines, at most 60"]


def test_functions_of_ops_are_half_as_long(found):
    assert found(function(30), path="src/pkg/ops/one.py") == []
    assert found(function(31), path="src/pkg/ops/one.py") == ["1: body of f has 31 lines, at most 30"]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ("a, b, c, d, e, f, g, h", 0),
        ("a, b, c, d, e, f, g, h, i", 9),
        ("a, b, c, d, /, e, f, g, h, i", 9),
        ("self, a, b, c, d, e, f, g, h", 0),
        ("cls, a, b, c, d, e, f, g, h, i", 9),
        ("a, *, b, c, d, e, f, g, h, i, j", 0),
    ],
)
def test_positional_parameters(found, arguments, count):
    wanted = [f"1: f takes {count} positional parameters, at most 8"] if count else []
    assert found(f"def f({arguments}):\n    pass\n") == wanted


@pytest.mark.parametrize("decorator", ["@dataclass", "@dataclasses.dataclass", "@dataclass(frozen=True)", "@config"])
def test_fields(found, decorator):
    fields = "".join(f"    f{i}: int = 0\n" for i in range(25))
    known = "    seen: ClassVar[int] = 0\n    constant = 3\n"
    assert found(f"{decorator}\nclass C:\n{fields}{known}") == []
    assert found(f"{decorator}\nclass C:\n{fields}    more: int = 0\n") == ["2: C has 26 fields of its own, at most 25"]
    assert found(f"class C:\n{fields}    more: int = 0\n") == []


@pytest.mark.parametrize(
    "expression",
    [
        "getattr(a, 'b')",
        "hasattr(a, 'b')",
        "setattr(a, 'b', 1)",
        "delattr(a, 'b')",
        "exec('a')",
        "eval('a')",
        "vars(a)",
        "globals()",
        "locals()",
    ],
)
def test_names_through_strings(found, expression):
    name = expression.partition("(")[0]
    wanted = f"{name} reaches a name through a string; spell it, or add an exception with its reason"
    assert found(f"x = 1\ny = {expression}\n") == [f"2: {wanted}"]
    assert found(f"y = map({name}, a)\n") == [f"1: {wanted}"], "handed on without a call"


@pytest.mark.parametrize(
    "expression", ["a.__dict__['b']", "object.__getattribute__(a, 'b')", "operator.attrgetter('b')(a)", "methodcaller('b')(a)"]
)
def test_ways_around(found, expression):
    (one,) = found(f"y = {expression}\n")
    assert "reaches a name through a string" in one


def test_what_only_looks_like_it(found):
    assert found("model.eval()\nx.getattr()\nvars = 1\n'getattr(a)'\n__getattr__, __all__ = attach()\n") == []


def test_a_frozen_dataclass_may_settle_its_fields_and_nothing_else_may(found):
    settle = "class C:\n    def {}(self):\n        object.__setattr__(self, 'a', 1)\n"
    assert found(settle.format("__post_init__")) == []
    assert found(settle.format("change")) == [
        "3: __setattr__ reaches a name through a string; spell it, or add an exception with its reason"
    ]


def test_global(found):
    assert found("def f():\n    global a, b\n    a = b = 1\n") == ["2: global a, b; pass it, or keep it in an object"]


def test_ops_neither_print_nor_wait(found):
    text = "def f(x):\n    print(x)\n    return x.item()\n"
    assert found(text, path="src/pkg/ops/one.py") == [
        "2: print in ops, which compute and say nothing",
        "3: .item() in ops makes the host wait for the device; keep the tensor",
    ]


def test_elsewhere_they_may(found):
    assert found("def f(x):\n    print(x)\n    return x.item()\n") == []


def test_a_file_that_does_not_parse(found):
    assert found("a = 1\ndef f(:\n") == ["2: does not parse (invalid syntax)"]


def test_an_exception_allows_one_name_in_one_file(found):
    one = check_tree.Allowed("models/one.py", "vars", "because")
    assert found("vars(a)\n", allowed=[one]) == []
    assert len(found("vars(a)\ngetattr(a, 'b')\n", allowed=[one])) == 1


def test_an_exception_for_a_folder(found):
    assert found("vars(a)\n", allowed=[check_tree.Allowed("models/", "vars", "because")]) == []
    assert len(found("vars(a)\n", allowed=[check_tree.Allowed("data/", "vars", "because")])) == 1


def test_an_exception_that_nothing_needs_is_reported(found):
    for path in ("models/one.py", "models/two.py", "one.py"):
        (finding,) = found("a = 1\n", allowed=[check_tree.Allowed(path, "vars", "because")])
        assert finding == f"1: the exception for vars in {path} is not needed; remove it"


def test_every_exception_has_its_reason():
    assert all(len(one.reason.split()) >= 5 for one in check_tree.ALLOWED)
    assert len(set(check_tree.ALLOWED)) == len(check_tree.ALLOWED) <= 20


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command(tmp_path):
    (tmp_path / "long.py").write_text("a = 1\n" * 401)
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"{tmp_path}/long.py:401: file of 401 lines, at most 400; divide it by what it does"
    assert done.stdout.splitlines()[1:] == ["1 over budget in 1 files."], "exceptions for files that were not read are not looked for"
    done = run(tmp_path / "absent")
    assert (done.returncode, done.stdout) == (2, f"Nothing to check in {tmp_path}/absent; give folders or files, such as src.\n")
    assert run().returncode == 2


def test_the_source_is_within_budget():
    done = run("src")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("files within budget.\n")
