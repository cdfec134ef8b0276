"""TrainerState and TrainerControl against transformers' own, and callbacks driven by hand as the loop drives them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.checkpoints import write
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import TrainerControl as TheirControl
from transformers.trainer_callback import TrainerState as TheirState

from burnish.checkpoint.files import CheckpointError
from burnish.checkpoint.state import TrainerControl, TrainerState, TrainState
from burnish.distributed.launch import Launch


def test_field_names_and_defaults_are_those_of_transformers(tmp_path):
    assert vars(TrainerState()) == vars(TheirState())
    assert vars(TrainerControl()) == vars(TheirControl())
    ours = TrainerState(global_step=3, log_history=[{"loss": 0.5}], best_metric=0.25)
    ours.save_to_json(tmp_path / "trainer_state.json")
    assert vars(TheirState.load_from_json(tmp_path / "trainer_state.json")) == vars(ours)
    assert TrainerState.load_from_json(tmp_path / "trainer_state.json") == ours


class Patience:
    """EarlyStoppingCallback driven by hand, as the loop drives it."""

    args = SimpleNamespace(load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=False, eval_strategy="steps")

    def __init__(self, run):
        self.run = run
        run.callbacks[0].on_train_begin(self.args, run.trainer, run.control)

    def evaluate(self, loss):
        run = self.run
        run.callbacks[0].on_evaluate(self.args, run.trainer, run.control, metrics={"eval_loss": loss})
        if run.trainer.best_metric is None or loss < run.trainer.best_metric:
            run.trainer.best_metric = loss
        return run.control.should_training_stop


def early_stopping_run(make_model, patience=2):
    model = make_model()
    callbacks = [EarlyStoppingCallback(early_stopping_patience=patience), TrainerCallback()]
    return TrainState(model=model, optimizer=torch.optim.SGD(model.parameters()), callbacks=callbacks)


def test_early_stopping_stops_after_its_patience(make_model):
    drive = Patience(early_stopping_run(make_model))
    assert [drive.evaluate(loss) for loss in (1.0, 0.8, 0.9, 0.7, 0.7, 0.8)] == [False, False, False, False, False, True]


def test_early_stopping_is_as_patient_after_a_resume(make_model, tmp_path):
    first = early_stopping_run(make_model)
    assert [Patience(first).evaluate(loss) for loss in (0.8, 0.9)] == [False, False]
    write(first, tmp_path)
    saved = json.loads((tmp_path / "trainer_state.json").read_text())["stateful_callbacks"]
    assert saved == {
        "EarlyStoppingCallback": {
            "args": {"early_stopping_patience": 2, "early_stopping_threshold": 0.0},
            "attributes": {"early_stopping_patience_counter": 1},
        }
    }
    resumed = early_stopping_run(make_model)
    callback = resumed.callbacks[0]
    assert resumed.load(tmp_path, Launch()) == ()
    assert resumed.callbacks[0] is callback
    assert callback.early_stopping_patience_counter == 1
    assert Patience(resumed).evaluate(0.9) is True


def test_callbacks_that_changed_between_two_runs_are_reported(make_model, tmp_path):
    class Counter(EarlyStoppingCallback):
        pass

    first = early_stopping_run(make_model)
    first.callbacks += [EarlyStoppingCallback(5), EarlyStoppingCallback(6)]
    write(first, tmp_path)
    resumed = early_stopping_run(make_model, patience=3)
    resumed.callbacks += [EarlyStoppingCallback(5), Counter()]
    assert resumed.load(tmp_path, Launch()) == (
        "Callback EarlyStoppingCallback continues with {'early_stopping_patience': 2, 'early_stopping_threshold': 0.0} "
        "from the checkpoint, not with {'early_stopping_patience': 3, 'early_stopping_threshold': 0.0}.",
        "Callback Counter has no state in the checkpoint and starts afresh.",
        "The checkpoint's state of callback EarlyStoppingCallback is not used: this run has no such callback.",
    )
    assert [callback.early_stopping_patience for callback in resumed.callbacks if isinstance(callback, EarlyStoppingCallback)] == [2, 5, 1]


def test_a_callback_whose_state_is_no_json_is_refused(make_model, tmp_path):
    run = early_stopping_run(make_model)
    run.callbacks[0].early_stopping_patience_counter = np.float32(1)
    with pytest.raises(CheckpointError) as error:
        write(run, tmp_path)
    assert str(error.value) == (
        "The state of callback EarlyStoppingCallback is no JSON (Object of type float32 is not JSON serializable); "
        "let its state() return numbers, strings, lists and dicts only."
    )
