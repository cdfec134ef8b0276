"""Where the scripts run: a folder of their models and data, and completions that are not 512 tokens long."""

import pytest

from burnish import GRPOConfig, RLOOConfig
from tests.trl_scripts.folders import load_path, make_folders, teach

TOKENS = 24


@pytest.fixture(scope="module")
def model():
    return load_path()


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    return teach(tmp_path_factory.mktemp("taught"))


@pytest.fixture
def here(model, tmp_path, monkeypatch):
    make_folders(tmp_path, model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for cls in (GRPOConfig, RLOOConfig):
        monkeypatch.setitem(cls.__init__.__wrapped__.__kwdefaults__, "max_completion_length", TOKENS)
    return tmp_path
