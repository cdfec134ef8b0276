"""Programs: what is right, what is wrong, and how far they are confined."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from burnish.rewards import code as code_module
from burnish.rewards.code import code, last_block, run_program
from burnish.rewards.contract import reward_func
from burnish.rewards.pool import RewardPool
from burnish.rewards.samples import Failure, RewardError, Sample


def sample(program, *, fence="```python", **columns):
    text = f"Here:\n{fence}\n{program}\n```\nThat is it."
    return Sample(prompt="p", completion=text, completion_ids=np.array([1]), finish_reason="stop", columns=columns)


def run(program, given="", **options):
    return run_program(program, given, **{"timeout": 5.0, "memory_mib": 512, "main": True, **options})


@pytest.fixture(params=["namespaces", "audit"])
def confined(request, monkeypatch, tmp_path):
    """Both ways; the second as on a system that permits no namespaces."""
    if request.param == "audit":
        changed = Path(code_module.CONFINED).read_text().replace("not libc.unshare(", "0 * libc.getpid(")
        (tmp_path / "confined.py").write_text(changed)
        monkeypatch.setattr(code_module, "CONFINED", str(tmp_path / "confined.py"))
    elif run("").how != "namespaces":
        pytest.skip("this system permits no user namespaces")
    return request.param


def test_tests_that_pass_and_fail():
    """f(1) = 2 and f(2) = 3, of which the second test denies one: all or nothing, or a half."""
    program, right, half = "def f(x):\n    return x + 1", ["assert f(1) == 2", "assert f(2) == 3"], ["assert f(1) == 2", "assert f(2) == 4"]
    assert code()(sample(program, tests=right)) == 1.0
    assert code()(sample(program, tests="\n".join(right), fence="```")) == 1.0
    assert code()(sample(program, tests=half)) == 0.0
    assert code(partial=True)(sample(program, tests=half)) == 0.5


def test_inputs_and_outputs():
    """White space at the ends of lines and of the whole does not count; what is printed before a crash does not either."""
    program = "if __name__ == '__main__':\n    print(int(input()) * 2)\n    print('end ')"
    given = {"stdin": ["2\n", "4"], "stdout": ["4\nend", "8\nend\n"]}
    assert code()(sample(program, **given)) == 1.0
    assert code(partial=True)(sample(program, stdin=["2", "3"], stdout=["4\nend", "7\nend"])) == 0.5
    assert code()(sample(program + "\n1 / 0", stdin="2", stdout="4\nend")) == 0.0
    with pytest.raises(RewardError, match="^needs as many texts in 'stdin' as in 'stdout', and the row has 1 and 2$"):
        code()(sample(program, stdin="2", stdout=["4", "5"]))


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "while True: pass",
        "import time; time.sleep(100)",
        "x = bytearray(2**31)",
        "open('x', 'wb').write(b'0' * 2**26)",
        "def f(:",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "1 / 0",
    ],
)
def test_what_does_not_pass(program, monkeypatch):
    monkeypatch.setattr(code_module, "WAITING", 0.8 if "sleep" in program else 4)
    start = time.monotonic()
    assert code(timeout=1.0)(sample(program, tests=["assert True"])) == 0.0
    assert time.monotonic() - start < 4.5


def test_where_there_is_no_code_and_where_there_is_nothing_to_test():
    empty = Sample(prompt="p", completion="none", completion_ids=np.array([1]), finish_reason="stop", columns={"tests": ["assert True"]})
    assert code()(empty) == 0.0
    assert [code()(sample("x = 1", tests=tests)) for tests in (None, [])] == [None, None]
    with pytest.raises(RewardError, match="^needs the column 'tests', or 'stdin' and 'stdout', which the row does not have$"):
        code()(sample("x = 1"))
    with pytest.raises(RewardError, match="^needs the column 'stdout', which the row does not have$"):
        code()(sample("x = 1", stdin="1"))


def test_the_last_block_counts():
    text = "```python\nfirst\n```\n```bash\nls\n```\nthen\n   ```py\nsecond\n   ```\n"
    assert last_block(text) == "second"
    assert last_block("1.\n   ```\n   if x:\n       y\n   ```") == "if x:\n    y"
    assert last_block("```python\nnever closed") is None


def test_there_is_no_network(confined):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        got = run(f"import socket\nsocket.create_connection(('127.0.0.1', {port}))", timeout=2)
        assert not got.passed
        said = run(f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}))\nexcept OSError as error:\n    print(error)")
    assert said.how == confined
    assert {"namespaces": "[Errno 101] Network is unreachable\n", "audit": "is not permitted here\n"}[confined] in said.stdout


def test_what_a_program_finds(confined, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    got = run("import os\nprint(sorted(os.listdir('.')), 'SECRET' in os.environ, input())", "given")
    assert (got.passed, got.stdout) == (True, "['program.py'] False given\n")


def test_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run("open('file', 'w').write('x')")
    run("while True: pass", timeout=1.0)
    assert os.listdir(tmp_path) == []


def test_in_the_pool():
    """Where it ends with its worker."""
    right, endless = sample("x = 1", tests=["assert x == 1"]), sample("import time; time.sleep(100)", tests=["assert True"])
    with RewardPool([reward_func(code(), "code")], workers=2, timeout=1.0, memory_mib=1024) as pool:
        assert pool.submit([right, endless], 0).result(20).rewards == [[1.0], [Failure("took more than 1 s")]]
        deadline = time.monotonic() + 5
        while running := [one for one in os.listdir("/proc") if one.isdigit() and _runs_confined(one)]:
            assert time.monotonic() < deadline, running
            time.sleep(0.01)


def _runs_confined(pid):
    try:
        return code_module.CONFINED.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
