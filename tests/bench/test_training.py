"""A training of a bench in this process: ours, on a tiny model."""

import os

import pytest
from bench.rows import COMMON, OFFLINE
from bench.subjects import training

from tests.tiny import save_tiny_model

PAIRS = [{"prompt": f"w{i} w{i + 1}", "chosen": " w7 w8", "rejected": f" w{i + 9}"} for i in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def trained(model, monkeypatch):
    """→ a function that trains two steps of two pairs by DPO: the answer, and the options that its trainer was given."""

    def run(**options):
        seen = []
        make = training.make_trainer

        def noted(library, method, given, arguments, passes):
            trainer = make(library, method, given, arguments, passes)
            seen.append(given)
            return trainer

        monkeypatch.setattr(training, "make_trainer", noted)
        more = COMMON | OFFLINE | {"batch_size": 2, "max_steps": 2, "learning_rate": 1e-2, "compute_dtype": "float32"} | options
        spec = {
            "library": "burnish",
            "method": "dpo",
            "model": str(model),
            "rows": PAIRS,
            "options": more,
            "warm_up_steps": 1,
            "threads": 1,
        }
        return training.run(spec), seen[-1]

    return run


def test_the_loss_is_that_of_the_first_measured_step(trained):
    """That of the step to warm up is log 2, whatever the sides do."""
    answer, _ = trained()
    assert answer["log"][0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert answer["facts"]["loss"] == answer["log"][1]["loss"] != answer["log"][0]["loss"]
    assert len(answer["measures"]["cpu_s"]) == 1
    assert "reference_cpu_s" not in answer["measures"]


def test_no_training_reads_what_another_kept(trained):
    """The reference's log-probs ahead are computed in a folder of this training's own, which is gone afterwards."""
    (first, one), (second, other) = (trained(precompute_ref_log_probs=True) for _ in range(2))
    assert {one["dataset_cache_dir"], one["output_dir"]}.isdisjoint({other["dataset_cache_dir"], other["output_dir"]})
    assert not os.path.exists(one["dataset_cache_dir"])
    (paid,), (again,) = first["measures"]["reference_cpu_s"], second["measures"]["reference_cpu_s"]
    assert paid > 0
    assert again > 0
    assert first["facts"] == second["facts"]
