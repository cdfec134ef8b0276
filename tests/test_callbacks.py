"""`transformers.TrainerCallback`s as their users know them: which events they see, and that what they ask for happens."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import transformers
from transformers import EarlyStoppingCallback, TrainerCallback

from burnish import EvalTokens, SFTConfig, SFTTrainer
from burnish.config import ConfigError
from burnish.run import TrainingError
from tests.tiny import texts, tiny_llama, tiny_tokenizer

EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A trainer of 3 steps an epoch, with everything off that is not asked for."""
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))

    def make(callbacks=(), *, compute_metrics=None, rows=12, **options):
        given = {"output_dir": str(tmp_path / "run"), "batch_size": 4, "compute_dtype": "float32", "learning_rate": 1e-2}
        args = SFTConfig(**given | {"save_strategy": "no", "max_length": None, "disable_tqdm": True} | options)
        return SFTTrainer(
            tiny_llama(),
            args,
            train_dataset=texts(rows),
            eval_dataset=texts(4, seed=1) if args.eval_strategy != "no" else None,
            processing_class=tiny_tokenizer(),
            callbacks=list(callbacks),
            compute_metrics=compute_metrics,
        )

    return make


def scripted(*values):
    """A `compute_metrics` that gives these values of "score", one at each evaluation."""
    left = iter(values)
    return lambda tokens: {"score": next(left)}


def saved(trainer):
    return sorted(int(path.name.rpartition("-")[2]) for path in trainer.directory.path.glob("checkpoint-*"))


def lines(trainer):
    return [json.loads(line) for line in trainer.directory.metrics.read_text().splitlines()]


class Recorder(TrainerCallback):
    """(event, step, names of arguments) of all that happens."""

    def __init__(self):
        self.seen = []


def _record(event):
    def method(self, args, state, control, **given):
        self.seen.append((event, state.global_step, set(given)))

    return method


for _event in EVENTS:
    setattr(Recorder, _event, _record(_event))


class Wish(TrainerCallback):
    """At `step`, in `event`, sets a flag of the control."""

    def __init__(self, flag, step, event="on_step_end"):
        self.flag, self.step = flag, step
        setattr(self, event, self.act)

    def act(self, args, state, control, **given):
        if state.global_step == self.step:
            setattr(control, self.flag, True)


# Events


def test_events_come_in_the_order_of_transformers_with_its_arguments(make, tmp_path):
    """The same training by `transformers.Trainer`, with the same callback."""
    options = {
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 4,
        "eval_on_start": True,
    }
    ours = Recorder()
    make([ours], num_train_epochs=2, **options).train()

    theirs = Recorder()
    tokens = tiny_tokenizer()(["w1 w2 w3"] * 12)["input_ids"]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "theirs"), num_train_epochs=2, per_device_train_batch_size=4, per_device_eval_batch_size=8,
        report_to="none", use_cpu=True, disable_tqdm=True, **options,
    )  # fmt: skip
    transformers.Trainer(
        tiny_llama(),
        arguments,
        data_collator=lambda rows: {name: torch.tensor([row["input_ids"] for row in rows]) for name in ("input_ids", "labels")},
        train_dataset=[{"input_ids": ids} for ids in tokens],
        eval_dataset=[{"input_ids": ids} for ids in tokens[:4]],
        callbacks=[theirs],
    ).train()

    def order(recorder):
        return [(event, step) for event, step, _ in recorder.seen if event != "on_save"]

    expected = order(theirs)
    assert expected.pop(-2) == ("on_log", 6)  # their summary of the run, which is the result of train() here
    assert order(ours) == expected
    # A checkpoint is written last in a step, so that it holds all of it: on_save comes after on_epoch_end, there before.
    assert [(event, step) for event, step, _ in ours.seen if event == "on_save"] == [("on_save", 4), ("on_save", 6)]
    assert [event for event, _, _ in ours.seen][-3:] == ["on_epoch_end", "on_save", "on_train_end"]
    shared = {"model", "processing_class", "optimizer", "lr_scheduler"}
    for event, _, given in ours.seen:
        assert given == shared | {"on_log": {"logs"}, "on_evaluate": {"metrics"}}.get(event, set())
    for event, _, given in theirs.seen:
        assert given >= shared | {"on_log": {"logs"}, "on_evaluate": {"metrics"}}.get(event, set())


def test_micro_batches_are_substeps(make):
    seen = Recorder()
    make([seen], max_steps=1, max_tokens_per_microbatch=40).train()
    within = [event for event, _, _ in seen.seen if event in ("on_substep_end", "on_pre_optimizer_step", "on_optimizer_step")]
    assert within.count("on_substep_end") >= 1
    assert within[-2:] == ["on_pre_optimizer_step", "on_optimizer_step"]


def test_a_callback_sees_the_model_change_between_its_events(make):
    class Weights(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, optimizer, **given):
            self.gradient = model.lm_head.weight.grad.clone()
            self.before = model.lm_head.weight.detach().clone()

        def on_optimizer_step(self, args, state, control, model, **given):
            self.moved = not torch.equal(model.lm_head.weight, self.before)

        def on_step_end(self, args, state, control, model, lr_scheduler, **given):
            self.after = model.lm_head.weight.grad, set(lr_scheduler.get_last_lr())

    watching = Weights()
    trainer = make([watching], max_steps=1)
    trainer.train()
    assert float(watching.gradient.abs().sum()) > 0
    assert watching.moved
    assert watching.after == (None, {0.0})  # the schedule is one ahead: linear to 0 over one step
    assert trainer.state.log_history[0]["learning_rate"] == 1e-2  # the rate of the step


def test_classes_are_made_and_added_ones_are_told(make):
    late = Recorder()
    trainer = make([Recorder], max_steps=1)
    trainer.add_callback(late)
    trainer.train()
    first = trainer.callbacks[0]
    assert isinstance(first, Recorder)
    assert first.seen[0][0] == "on_init_end"
    assert first.seen[1:] == late.seen
    trainer.remove_callback(late)
    assert trainer.callbacks == trainer.run.state.callbacks == [first]
    trainer.remove_callback(Recorder)
    assert trainer.run.state.callbacks == []


# Wishes


def test_should_training_stop_stops_after_the_step_logs_what_is_left_and_saves(make):
    trainer = make([Wish("should_training_stop", 3)], max_steps=9, save_strategy="steps", logging_steps=2)
    assert trainer.train().global_step == 3
    assert saved(trainer) == [3]
    assert [line["step"] for line in lines(trainer)] == [2, 3]


def test_a_run_that_a_callback_ended_stays_ended(make, capsys):
    make([Wish("should_training_stop", 3)], max_steps=9, save_strategy="steps").train()
    again = make(max_steps=9, save_strategy="steps")
    capsys.readouterr()
    assert again.train().global_step == 3
    assert "A callback ended this run there; overwrite_output_dir begins anew.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "event", ["on_step_begin", "on_step_end", "on_log", "on_evaluate", "on_epoch_end", "on_substep_end", "on_optimizer_step"]
)
def test_a_stop_is_heard_from_every_event_of_a_step(make, event):
    options = {"logging_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_tokens_per_microbatch": 40}
    begins = event in ("on_step_begin", "on_substep_end", "on_optimizer_step")  # these come before the step is counted
    trainer = make([Wish("should_training_stop", 2 if begins else 3, event)], max_steps=9, **options)
    assert trainer.train().global_step == 3


def test_should_save_should_evaluate_and_should_log(make):
    wishes = [Wish("should_save", 2), Wish("should_evaluate", 3), Wish("should_log", 4)]
    seen = Recorder()
    trainer = make([*wishes, seen], max_steps=6, eval_strategy="steps", eval_steps=100, logging_steps=100)
    trainer.train()
    assert saved(trainer) == [2]
    happened = [(event, step) for event, step, _ in seen.seen if event in ("on_save", "on_evaluate", "on_log")]
    # evaluations are logged, too; the last step logs and evaluates whatever the intervals are
    evaluated = [("on_log", 3), ("on_evaluate", 3)]
    assert happened == [("on_save", 2), *evaluated, ("on_log", 4), ("on_log", 6), ("on_log", 6), ("on_evaluate", 6)]
    assert [("loss" in line, "eval_loss" in line) for line in lines(trainer)] == [
        (False, True),
        (True, False),
        (True, False),
        (False, True),
    ]


def test_a_wish_can_be_taken_back(make):
    class Never(TrainerCallback):
        def on_step_end(self, args, state, control, **given):
            control.should_save = False

    trainer = make([Never()], max_steps=4, save_strategy="steps", save_steps=2)
    trainer.train()
    assert saved(trainer) == []


def test_should_epoch_stop_goes_on_with_the_next_epoch_and_does_not_add_epochs(make):
    """3 steps an epoch; each is cut after its first."""

    class FirstOnly(TrainerCallback):
        def on_step_end(self, args, state, control, **given):
            control.should_epoch_stop = True

    seen = Recorder()
    trainer = make([FirstOnly(), seen], num_train_epochs=2, save_strategy="epoch", logging_steps=1)
    assert trainer.train().global_step == 2
    epochs = [(event, step) for event, step, _ in seen.seen if "epoch" in event]
    assert epochs == [("on_epoch_begin", 0), ("on_epoch_end", 1), ("on_epoch_begin", 1), ("on_epoch_end", 2)]
    assert saved(trainer) == [1, 2]
    assert [line["epoch"] for line in lines(trainer)] == pytest.approx([1 / 3, 4 / 3])
    assert trainer.run.state.cursor == (2, 0)

    by_steps = make([FirstOnly()], max_steps=5, overwrite_output_dir=True)
    assert by_steps.train().global_step == 5  # steps were asked for


def test_a_control_of_transformers_own_class_may_be_the_answer(make):
    class Answers(TrainerCallback):
        def on_step_end(self, args, state, control, **given):
            return transformers.TrainerControl(should_training_stop=True)

    assert make([Answers()], max_steps=5).train().global_step == 1


def test_a_wish_to_evaluate_where_there_is_nothing_to_evaluate_on(make):
    with pytest.raises(TrainingError, match=r"^There is nothing to evaluate on; give eval_dataset\.$"):
        make([Wish("should_evaluate", 1)], max_steps=2).train()


# Early stopping and the best model


def test_early_stopping_stops_when_patience_is_over_and_the_best_weights_are_loaded(make):
    """Best at the second evaluation; two evaluations that are no better follow."""
    trainer = make(
        [EarlyStoppingCallback(early_stopping_patience=2)],
        compute_metrics=scripted(1.0, 0.8, 0.9, 0.85, 0.1),
        max_steps=10, eval_strategy="steps", eval_steps=1,
        load_best_model_at_end=True, metric_for_best_model="score", greater_is_better=False,
    )  # fmt: skip
    assert trainer.train().global_step == 4
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (0.8, 2)
    assert trainer.state.best_model_checkpoint == str(trainer.directory.path / "checkpoint-2")
    best = transformers.AutoModelForCausalLM.from_pretrained(trainer.state.best_model_checkpoint)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, best.state_dict()[name])


def test_early_stopping_lets_a_run_that_improves_go_on(make):
    callback = EarlyStoppingCallback(early_stopping_patience=1)
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "score", "greater_is_better": True}
    trainer = make([callback], compute_metrics=scripted(0.1, 0.2, 0.3, 0.4), max_steps=4, **options)
    assert trainer.train().global_step == 4
    assert callback.early_stopping_patience_counter == 0


def test_the_patience_that_was_used_up_before_a_crash_is_remembered(make):
    """Evaluations 0.5, 0.6, then a crash; two that are no better are enough to stop."""

    class Crash(TrainerCallback):
        def on_step_begin(self, args, state, control, **given):
            if state.global_step == 2:
                raise KeyboardInterrupt

    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "score", "greater_is_better": False}
    options |= {"max_steps": 9, "save_strategy": "steps", "save_steps": 1}
    first = make([EarlyStoppingCallback(2), Crash()], compute_metrics=scripted(0.5, 0.6), **options)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    again = make([EarlyStoppingCallback(2)], compute_metrics=scripted(0.7, 0.1), **options)
    assert again.train().global_step == 3


def test_a_metric_that_is_not_a_number_is_never_the_best(make):
    trainer = make(
        compute_metrics=scripted(math.nan, 0.5, math.nan),
        max_steps=3, eval_strategy="steps", eval_steps=1,
        load_best_model_at_end=True, metric_for_best_model="score", greater_is_better=False,
    )  # fmt: skip
    trainer.train()
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (0.5, 2)


@pytest.mark.parametrize(("limit", "kept"), [(1, [2, 6]), (2, [2, 6]), (3, [2, 5, 6]), (None, [1, 2, 3, 4, 5, 6])])
def test_save_total_limit_keeps_the_best_and_the_last(make, limit, kept):
    trainer = make(
        compute_metrics=scripted(0.5, 0.1, 0.5, 0.5, 0.5, 0.5),
        max_steps=6, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, save_total_limit=limit,
        load_best_model_at_end=True, metric_for_best_model="score", greater_is_better=False,
    )  # fmt: skip
    trainer.train()
    assert saved(trainer) == kept


def test_the_best_model_is_found_in_a_folder_that_was_moved(make, tmp_path):
    options = {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "score"}
    first = make(compute_metrics=scripted(0.9, 0.1, 0.1), save_strategy="steps", save_steps=1, **options)
    first.train()
    (tmp_path / "run").rename(tmp_path / "moved")
    again = make(compute_metrics=scripted(), output_dir=str(tmp_path / "moved"), save_strategy="steps", save_steps=1, **options)
    again.train()
    assert again.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-1")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.model.parameters(), first.model.parameters(), strict=True))


def test_a_metric_that_evaluation_does_not_give(make):
    trainer = make(max_steps=1, eval_strategy="steps", metric_for_best_model="f1", greater_is_better=True)
    with pytest.raises(
        TrainingError, match=r"^metric_for_best_model is 'f1', and evaluation gives eval_entropy, eval_loss, .*; choose one\.$"
    ):
        trainer.train()


# compute_metrics and named sets


def test_compute_metrics_sees_every_trained_token_of_the_evaluation_set(make):
    seen = []

    def compute_metrics(tokens):
        seen.append(tokens)
        return {"mean_logp": np.float32(tokens.logps.mean()), "eval_hits": tokens.correct.sum()}

    trainer = make(compute_metrics=compute_metrics, max_steps=1, eval_strategy="steps", max_tokens_per_microbatch=40)
    trainer.train()
    (tokens,) = seen
    assert isinstance(tokens, EvalTokens)
    examples = trainer.sets.eval["eval"]
    assert len(tokens.logps) == examples.trained.sum()
    targets = {row: sorted(tokens.label_ids[tokens.rows == row].tolist()) for row in set(tokens.rows)}
    assert targets == {
        example.group_id: sorted(int(t) for s in example.branches[0].segments if s.trained for t in s.token_ids) for example in examples
    }
    (line,) = (line for line in lines(trainer) if "eval_loss" in line)
    assert line["eval_loss"] == pytest.approx(-tokens.logps.mean(), rel=1e-5)
    assert line["eval_mean_logp"] == pytest.approx(tokens.logps.mean())
    assert line["eval_entropy"] == pytest.approx(tokens.entropies.mean(), rel=1e-5)
    assert line["eval_hits"] == tokens.correct.sum()


def test_compute_metrics_that_gives_no_numbers(make):
    trainer = make(compute_metrics=lambda tokens: {"text": "good"}, max_steps=1, eval_strategy="steps")
    with pytest.raises(ConfigError, match=r"^compute_metrics gave {'text': 'good'}; let it return a dict of names and numbers\.$"):
        trainer.train()


def test_named_sets_have_metrics_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))
    args = SFTConfig(
        output_dir=str(tmp_path / "run"), max_steps=2, compute_dtype="float32", save_strategy="no", disable_tqdm=True,
        eval_strategy="steps", eval_steps=1, metric_for_best_model="b_loss",
    )  # fmt: skip
    sets = {"a": texts(3, seed=1), "b": texts(5, seed=2)}
    events = Recorder()
    trainer = SFTTrainer(
        tiny_llama(), args, train_dataset=texts(8), eval_dataset=sets, processing_class=tiny_tokenizer(), callbacks=[events]
    )  # fmt: skip
    trainer.train()
    evaluated = [line for line in lines(trainer) if "loss" not in line]
    assert [(line["step"], "eval_a_loss" in line, "eval_b_loss" in line) for line in evaluated] == [
        (1, True, False), (1, False, True), (2, True, False), (2, False, True),
    ]  # fmt: skip
    assert trainer.state.best_metric == min(line["eval_b_loss"] for line in evaluated if "eval_b_loss" in line)
    assert [event for event, _, _ in events.seen].count("on_evaluate") == 2  # all sets together
    found = trainer.evaluate()
    assert found["eval_a_loss"] == evaluated[-2]["eval_a_loss"]
    assert found["eval_b_perplexity"] == pytest.approx(math.exp(found["eval_b_nll"]))
    assert set(trainer.evaluate(sets["a"])) == {name.replace("_a_", "_") for name in found if "_a_" in name}
