"""TRL's scripts of supervised fine-tuning, with their import lines changed. Rows and batches of 8, so three epochs are three steps."""

from math import log
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from burnish.checkpoint.files import CheckpointError
from tests.trl_scripts.conftest import enter
from tests.trl_scripts.running import run
from tests.trl_scripts.scripts import SFT


@pytest.mark.parametrize("name", SFT)
def test_sft(name, here):
    trainer = run(SFT[name])
    last = trainer.state.log_history[-1]
    assert trainer.state.global_step == 3
    assert 4 < last["loss"] < 9  # of an embedded model that has learnt nothing yet; log 430, of an even guess, is 6.06
    assert log(430) == pytest.approx(6.06, abs=0.01)
    assert last["num_tokens"] >= 1089  # prompts too, three times over
    kind = "adapter_model.safetensors" if "adapters" in name else "model.safetensors"
    trainer.save_model()
    assert (Path(trainer.args.output_dir) / kind).is_file()


@pytest.fixture(scope="module")
def packed(model, tmp_path_factory):
    """The folder in which the script of packing ran, and the last line of its log."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, model, patch)
        return folder, run(SFT["sft_trainer, Packing"]).state.log_history[-1]


def test_two_of_them_are_one_run(packed, here):
    """Packing changes nothing, nor do eight rows of one device each: the losses are the same to the bit."""
    assert run(SFT["quickstart, Out of Memory?"]).state.log_history[-1]["loss"] == packed[1]["loss"]


def test_what_is_trained_differs_where_the_script_says_so(packed, here):
    whole, assistant = packed[1], run(SFT["sft_trainer, Train on assistant messages only"]).state.log_history[-1]
    assert whole["num_tokens"] == assistant["num_tokens"]
    assert whole["loss"] != assistant["loss"]


def test_two_scripts_without_an_output_dir_do_not_share_one(packed, here, monkeypatch):
    """TRL would write the second run over the first."""
    monkeypatch.chdir(packed[0])
    with pytest.raises(CheckpointError, match=r"runs/sft/checkpoint-3 belongs to another run \(assistant_only_loss is 'False' there"):
        run(SFT["sft_trainer, Train on assistant messages only"])


def test_the_model_that_is_saved_is_the_model_that_was_trained(here):
    trainer = run(SFT["README, SFTTrainer"])
    trainer.save_model()
    read = AutoModelForCausalLM.from_pretrained(trainer.args.output_dir).state_dict()
    assert all(read[name].equal(weight) for name, weight in trainer.model.state_dict().items())


def test_a_dtype_in_model_init_kwargs_is_the_model_s(here):
    trainer = run(SFT["sft_trainer, Model initialization"])
    assert {str(weight.dtype) for weight in trainer.model.parameters()} == {"torch.bfloat16"}
    assert trainer.args.model_init_kwargs is None
    assert trainer.model_config.dtype == "bfloat16"
