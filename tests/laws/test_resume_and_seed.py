"""Laws *resume* and *seed*: a run is a function of its seed, to the bit, and being stopped is no part of it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.laws.continued import ADAPTIVE, CASE, STEPS, cut_short, lines, samples, stops, variants, weights, whole
from tests.laws.methods import build_trainer, cases
from tests.models.families import tiny_model

ROOT = Path(__file__).parents[2]
DEADLINE = 300  # seconds


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every run never stopped, here; and in one new process, each stopped and continued, and each once more from the start."""
    folder = tmp_path_factory.mktemp("resume")
    finished = {}
    for name, case in CASE.items():
        for variant in variants(case):
            run = folder / f"{name}; {variant}"
            finished[name, variant] = whole(case, variant, run, save_steps=1)
            for step in stops(case):
                cut_short(run, step, folder / f"stopped {name}; {variant}; {step}")
            (folder / f"again {name}; {variant}; 0").mkdir()
    command = [sys.executable, "-m", "tests.laws.continued", str(folder)]
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=DEADLINE, check=False)
    if done.returncode:
        pytest.fail((folder / "log").read_text()[-4000:])
    return folder, finished


def same_bits(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@cases("resume", "variant", "step", of=lambda case: [(variant, step) for variant in variants(case) for step in stops(case)])
def test_stopped_is_never_stopped(runs, case, variant, step):
    folder, finished = runs
    stopped = folder / f"stopped {case.name}; {variant}; {step}"
    assert same_bits(torch.load(stopped / "weights.pt"), finished[case.name, variant])
    assert lines(stopped) == lines(folder / f"{case.name}; {variant}")
    assert samples(stopped) == samples(folder / f"{case.name}; {variant}")


@cases("seed", "variant", of=variants)
def test_same_seed_same_bits(runs, case, variant):
    """In another process."""
    folder, finished = runs
    again = folder / f"again {case.name}; {variant}; 0"
    assert same_bits(torch.load(again / "weights.pt"), finished[case.name, variant])
    assert lines(again) == lines(folder / f"{case.name}; {variant}")
    assert samples(again) == samples(folder / f"{case.name}; {variant}")


def test_the_runs_are_worth_comparing(runs):
    """Logged across checkpoints, evaluated, and each variant's weights moved."""
    folder, finished = runs
    steps = [line["step"] for line in lines(folder / "sft-nll; adamw")]
    assert steps == [3, 4, 6, 8, 8], "logged every 3 steps and at the last, evaluated every 4"
    assert len(list((folder / "sft-nll; adamw").glob("checkpoint-*"))) == STEPS
    start = dict(tiny_model("llama", dtype=torch.float32, attention_dropout=0.1).named_parameters())
    assert all(not torch.equal(value, start[name]) for name, value in finished["sft-nll", "muon"].items())


def test_the_samplings_are_worth_comparing(runs):
    """Two samplings of two steps, each learnt from twice: groups of both were dropped and replaced, and the last batch was cut short."""
    folder, _ = runs
    run = folder / "grpo-dapo; adamw"
    drawn = [line for line in samples(run) if line["set"].startswith("train")]
    assert len({line["step"] for line in drawn}) >= 2
    assert {line["set"] for line in drawn} == {"train", "train, dropped"}
    assert {line["set"] for line in samples(run)} == {"train", "train, dropped", "eval"}
    assert any(line.get("clip_ratio/region_mean", 0) > 0 for line in lines(run)), "rollouts of an older policy"


def test_the_entropy_bonus_is_worth_comparing(runs):
    """Below a target that is never reached the coefficient of 0.1 grows by 0.05 a step, and it is applied: the weights are others."""
    folder, finished = runs
    for step in (1, STEPS):
        state = json.loads((folder / f"grpo-dapo; {ADAPTIVE}" / f"checkpoint-{step}" / "loop_state.json").read_text())["method"]
        assert state["entropy"][0] == pytest.approx(0.1 + 0.05 * step)
    assert not same_bits(finished["grpo-dapo", ADAPTIVE], finished["grpo-dapo", "adamw"])


PLAIN = {"train_sampling_strategy": "sequential", "disable_dropout": True}


def trained(case, folder, seed, *, lora=False, **options):
    if lora:
        from peft import LoraConfig

        options["peft_config"] = LoraConfig(r=2, lora_dropout=0.0, target_modules=["q_proj"])
    model = case.model(dtype=torch.float32, attention_dropout=0.1)
    trainer = build_trainer(case, model, folder / str(seed), seed=seed, max_steps=3, save_strategy="no", **options)
    trainer.train()
    return weights(trainer)


@cases("seed")
@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"disable_dropout": True}, True),
        ({"train_sampling_strategy": "sequential", "disable_dropout": False}, True),
        ({**PLAIN, "lora": True}, True),
        (PLAIN, False),
    ],
    ids=["order of the data", "dropout", "a new adapter", "nothing random"],
)
def test_other_seed_other_bits(case, options, differs, tmp_path):
    """Each source of randomness by itself; and without any, the seed is in nothing. Sampling is one that is never missing."""
    one, other = trained(case, tmp_path, 1, **options), trained(case, tmp_path, 2, **options)
    assert same_bits(one, other) != (differs or case.samples)


@cases("seed")
def test_what_was_drawn_before_does_not_matter(case, tmp_path):
    found = []
    for before in (0, 1):
        torch.manual_seed(before), np.random.seed(before), random.seed(before)
        found.append(trained(case, tmp_path / str(before), 7, lora=True))
    assert same_bits(*found)
