"""Two steps of every recipe, on a CPU: its own options, but for those of `CHANGED`."""

from __future__ import annotations

import json

import pytest
import yaml

from burnish.cli.main import _command, main
from burnish.config.parse import parse, to_dict
from tests.recipes.small import CHANGED, ROOT, make_small, save_models

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    save_models(folder)
    return folder


def method_of(path):
    return path.read_text(encoding="utf-8").partition("burnish ")[2].split()[0]


def asked(path):
    """Every option of the recipe, as it is written."""
    command = parse(["--config", str(path)], _command(method_of(path)))
    return json.loads(json.dumps(to_dict(command.model, command.data, command.args)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_two_steps(path, folder, capsys):
    small = make_small(path, folder)
    assert main([method_of(path), "--config", str(small)]) == 0, capsys.readouterr().err
    run = folder / "runs" / path.parent.name / path.stem
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 2
    resolved, wanted = yaml.safe_load((run / "resolved.yaml").read_text()), asked(path)
    differing = {name for name, value in wanted.items() if name in resolved and resolved[name] != value}
    assert differing <= CHANGED
    assert set(wanted) - set(resolved) <= CHANGED
