"""tools/api.py: each line of the surface, from a package of a few lines; and the recorded surface is that of the source."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("api", ROOT / "tools" / "api.py")
api = importlib.util.module_from_spec(_spec)
sys.modules["api"] = api
_spec.loader.exec_module(api)

FILES = {
    "__init__.py": 'import lazy_loader as lazy\n\na, b, c = lazy.attach(__name__, submod_attrs={"trainer": ["Trainer", "Out"]})\n',
    "trainer/__init__.py": "from burnish.trainer.trainer import Out, Trainer\n",
    "trainer/trainer.py": """
from typing import NamedTuple
from burnish.types import Row

class Out(NamedTuple):
    step: int
    metrics: dict[str, float] = {}

class Trainer(Base[int]):
    kind = 3

    def __init__(self, model, args: int | None = None, *, rows=None, **elsewhere):
        self.kept = model

    @property
    def state(self) -> int: ...

    @classmethod
    def load(cls, path: str) -> "Trainer": ...

    def train(self, *again: int) -> Out: ...

    def _own(self): ...
""",
    "types.py": 'from typing import Literal\n\nRow = Literal["a", "b"]\n',
    "config/__init__.py": "from burnish.config.one import OneConfig\n",
    "config/one.py": """
@config
class OneConfig(Base):
    rate: float = option(2e-5, "Help.", above=0, at_most=1)
    names: list[str] = option([], "Help.")
    path: str = option(help="Help.")
    constant = 3

@dataclass
class Other:
    rate: float = 1.0
""",
    "cli/__init__.py": "",
    "cli/main.py": """
METHODS = {"one": Names("OneConfig", "OneTrainer")}

def _command(method, **first):
    return {**first, "model": ModelConfig, "args": METHODS[method].config}

def _train(method, args):
    return parse(args, _command(method, devices=DevicesConfig), prog="go")

def _far(args):
    return parse(args, _command("one"), prog="go far")

def _merge(args):
    return parse(args, MergeConfig, prog="merge")

def _other(args):
    return run(args)

COMMANDS = {
    "go": Command("Help.", partial(_train, "one")),
    "go far": Command("Help.", _far),
    "merge": Command("Help.", _merge),
    "other": Command("Help.", _other),
}
""",
    "ops/__init__.py": "",
    "ops/zeta.py": "import torch\n\ndef mean(x_N: Tensor, *, keep: bool = False) -> Tensor: ...\n\ndef _hidden(): ...\n",
    "ops/alpha.py": "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Head:\n    scale: float = 1.0\n",
}
SURFACE = """\
name burnish.Trainer: class (Base[int])
method Trainer.__init__: -> None
parameter Trainer.__init__.model: None
parameter Trainer.__init__.args: int | None = None
parameter Trainer.__init__.rows: None = None (by name)
parameter Trainer.__init__.**elsewhere: None
property Trainer.state: int
method Trainer.load: -> Trainer
parameter Trainer.load.path: str
method Trainer.train: -> Out
parameter Trainer.train.*again: int
name burnish.Out: class (NamedTuple)
field Out.step: int
field Out.metrics: dict[str, float] = {}
option OneConfig.rate: float = 2e-05 (above=0, at_most=1)
option OneConfig.names: list[str] = []
option OneConfig.path: str = (required)
values Row: Literal['a', 'b']
command burnish go:
command burnish go far:
command burnish merge:
command burnish other:
options burnish go: DevicesConfig, ModelConfig, OneConfig
options burnish go far: ModelConfig, OneConfig
options burnish merge: MergeConfig
name ops.alpha.Head: class
field ops.alpha.Head.scale: float = 1.0
function ops.zeta.mean: -> Tensor
parameter ops.zeta.mean.x_N: Tensor
parameter ops.zeta.mean.keep: bool = False (by name)
"""


@pytest.fixture
def package(tmp_path):
    for name, text in FILES.items():
        file = tmp_path / "src/burnish" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_every_kind_of_line(package):
    assert "\n".join(api.surface(package)) + "\n" == SURFACE


def test_a_difference_is_shown_and_nothing_else(package, capsys):
    assert api.main(["--root", str(package)]) == 1, "nothing is recorded yet"
    assert api.main(["--root", str(package), "--record"]) == 0
    capsys.readouterr()
    assert api.main(["--root", str(package)]) == 0
    assert capsys.readouterr().out == "The stable surface is as recorded, 30 lines.\n"
    file = package / "src/burnish/config/one.py"
    file.write_text(file.read_text().replace("2e-5", "1e-5"))
    assert api.main(["--root", str(package)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "-option OneConfig.rate: float = 2e-05 (above=0, at_most=1)",
        "+option OneConfig.rate: float = 1e-05 (above=0, at_most=1)",
        api.INSTEAD,
    ]


def test_the_recorded_surface_is_that_of_the_source():
    done = subprocess.run([sys.executable, str(ROOT / "tools/api.py")], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_defaults_on_record_are_those_that_hold():
    """Read from the source here, and there from the classes themselves."""
    import burnish.config
    from burnish.config.base import options

    classes = {name: burnish.config.__getattr__(name) for name in burnish.config.__all__}

    recorded = [line for line in (ROOT / api.RECORD).read_text(encoding="utf-8").splitlines() if line.startswith("option ")]
    seen = 0
    for line in recorded:
        name, _, value = line.removeprefix("option ").partition(": ")
        owner, _, option = name.partition(".")
        if owner in classes and "(required)" not in value:
            default = options(classes[owner])[option].default
            assert value.rpartition(" (")[0].endswith(f"= {default!r}") or value.endswith(f"= {default!r}"), line
            seen += 1
    assert seen >= 80
