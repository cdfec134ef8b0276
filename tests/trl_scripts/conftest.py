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
    enter(tmp_path, model, monkeypatch)
    return tmp_path


def enter(folder, model, patch):
    """Makes the models and data there, and runs from there on what runs until the patch is undone."""
    make_folders(folder, model)
    patch.chdir(folder)
    patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    for cls in (GRPOConfig, RLOOConfig):
        patch.setitem(cls.__init__.__wrapped__.__kwdefaults__, "max_completion_length", TOKENS)
