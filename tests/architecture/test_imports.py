"""What an import brings with it, in an interpreter that knows nothing yet."""

import subprocess
import sys

import pytest

HEAVY = {"transformers", "datasets", "peft", "accelerate", "tokenizers"}
EVERY = """
import importlib, pkgutil, {0} as room
for one in pkgutil.walk_packages(room.__path__, "{0}."):
    importlib.import_module(one.name)
"""


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import burnish", {"torch", "numpy", "yaml", "rich", "tyro"}),
        ("import burnish.types", {"torch"}),
        (EVERY.format("burnish.config"), {"torch", "numpy", "rich"}),
        (EVERY.format("burnish.ops"), {"rich", "tyro", "yaml"}),
        (EVERY.format("burnish.data"), set()),
        (EVERY.format("burnish.report"), {"tensorboard", "trackio", "wandb", "mlflow"}),
        (EVERY.format("burnish.checkpoint"), set()),
        (EVERY.format("burnish.distributed"), set()),
        ("import burnish.cli.main", {"torch", "rich"}),
        ("import burnish.experimental.profit.config", {"torch", "rich"}),
    ],
    ids=["burnish", "types", "config", "ops", "data", "report", "checkpoint", "distributed", "cli.main", "experimental"],
)
def test_nothing_heavy_comes_along(statement, forbidden):
    ask = f"{statement}\nimport sys\nprint(*sorted({HEAVY | forbidden!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr[-2000:]


def test_public_names_are_there_when_they_are_asked_for():
    ask = "import burnish\nfor name in burnish.__all__:\n    assert getattr(burnish, name) is not None, name\nprint(len(burnish.__all__))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 14
