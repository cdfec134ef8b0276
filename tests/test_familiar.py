"""What scripts for transformers' Trainer call beside train, evaluate and save_model."""

import json

import pytest

from burnish import SFTConfig, SFTTrainer
from tests.tiny import save_tiny_model, texts


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("familiar")
    args = SFTConfig(output_dir=str(folder / "run"), max_steps=2, logging_steps=1, report_to="none")
    return SFTTrainer(str(save_tiny_model(folder / "model")), args, train_dataset=texts(8))


def test_the_end_of_transformers_own_scripts(trainer, capsys):
    result = trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_metrics("eval", {"eval_loss": 0.5})
    trainer.save_metrics("test", {"test_loss": 0.25}, combined=False)
    trainer.save_state()
    folder = trainer.directory.path
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("train_results", "eval_results", "all_results")}
    assert read["train_results"] == result.metrics
    assert read["all_results"] == result.metrics | {"eval_loss": 0.5}
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 2
    shown = capsys.readouterr().out
    assert "train metrics:" in shown
    assert f"train_loss = {round(result.training_loss, 4)}" in shown


def test_who_is_first(trainer):
    assert trainer.is_world_process_zero()
    assert trainer.is_local_process_zero()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "push_to_hub",
            "SFTTrainer has no 'push_to_hub': nothing is uploaded; save_model writes the folder, and huggingface_hub uploads it.",
        ),
        ("accelerator", "SFTTrainer has no 'accelerator': accelerate is not used; trainer.here has rank, world_size, device and main."),
        ("no_such", "SFTTrainer has no 'no_such'."),
    ],
)
def test_what_is_not_there_says_what_is(trainer, name, said):
    with pytest.raises(AttributeError) as missing:
        getattr(trainer, name)
    assert str(missing.value) == said
    assert not hasattr(trainer, name)


def test_what_the_sentences_name_is_there(trainer):
    """Attributes that they tell the user to read."""
    assert trainer.here.rank == 0
    assert trainer.here.main
    assert len(trainer.sets.train) == 8
    assert trainer.sets.eval == {}
    assert trainer.model is not None
    assert all("learning_rate" in line for line in trainer.state.log_history)
    assert trainer.args.batch_size == 8
    assert next(trainer.batches().steps((0, 0)))
