"""The trainers of GRPO and RLOO as users call them: a tiny model learns a rule, and what cannot work is refused beforehand."""

from __future__ import annotations

import gc
import json
import os
import time

import pytest

from burnish import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from burnish.config.values import ConfigError
from burnish.report.samples import read_samples
from burnish.rewards.samples import RewardError
from tests.tiny import tiny_llama, tiny_tokenizer

ROWS = [{"prompt": f"w{i} w{i + 1} w{i + 2}", "k": i} for i in range(12)]
KINDS = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}
kinds = pytest.mark.parametrize("kind", KINDS)


def even(completion_ids, **columns):
    """The share of even tokens: about a half of what a new model says, and any model can learn to say nothing else."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def made(kind, folder, reward_funcs=even, *, model=None, rows=ROWS, eval_dataset=None, **options):
    trainer, config = KINDS[kind]
    pinned = {
        "output_dir": str(folder), "batch_size": 4, "num_generations": 4, "max_completion_length": 6, "learning_rate": 2e-2,
        "max_steps": 12, "compute_dtype": "float32", "logging_steps": 1, "disable_tqdm": True, "reward_workers": 1, "save_strategy": "no",
    }  # fmt: skip
    args = config(**(pinned | options))
    model = tiny_llama() if model is None else model
    more = {"train_dataset": rows, "eval_dataset": eval_dataset, "processing_class": tiny_tokenizer()}
    return trainer(model=model, reward_funcs=reward_funcs, args=args, **more)


def logged(folder, name):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


@kinds
def test_a_rule_is_learnt(kind, tmp_path):
    """Of 16 completions a step; the mean reward of the last three against that of the first three, and of the set evaluated on.

    RLOO, whose advantages are not divided by their deviation, takes twice as long.
    """
    steps = {"grpo": 12, "rloo": 24}[kind]
    trainer = made(kind, tmp_path, eval_dataset=ROWS[:6], success_reward=0.99, num_generations_eval=2, max_steps=steps)
    before = trainer.evaluate()
    assert trainer.train().global_step == steps
    after, rewards = trainer.evaluate(), logged(tmp_path, "reward")
    assert sum(rewards[:3]) / 3 < 0.62
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
    assert after["eval_reward"] > before["eval_reward"] + 0.15
    assert after["eval_pass@2"] >= after["eval_accuracy"] >= before["eval_accuracy"]
    assert logged(tmp_path, "ratio") == [1.0] * steps


def test_a_rule_is_learnt_from_old_rollouts(tmp_path):
    """Six samplings of two steps, each learnt from twice, where ratios move away from 1 and are clipped."""
    made("grpo", tmp_path, rows=ROWS[:8], max_steps=24, steps_per_generation=2, num_iterations=2, learning_rate=1e-2).train()
    rewards, ratios = logged(tmp_path, "reward"), logged(tmp_path, "ratio")
    assert len(rewards) == 6
    assert rewards[-1] > rewards[0] + 0.15
    assert ratios[::4] == [1.0] * 6
    assert all(ratio != 1.0 for i, ratio in enumerate(ratios) if i % 4)
    assert max(logged(tmp_path, "clip_ratio/region_mean")) > 0


def test_everything_that_was_sampled_is_kept(tmp_path):
    """Two steps of 4 · 4 completions, with the row's own text and tokens, and what came of them."""
    made("grpo", tmp_path, max_steps=2).train()
    lines = list(read_samples(tmp_path))
    assert [line["step"] for line in lines] == [0] * 16 + [1] * 16
    for line in lines:
        assert line["prompt"].split() in [row["prompt"].split() for row in ROWS]
        assert line["reward"] == line["rewards"]["even"] == pytest.approx(even([line["tokens"]])[0])
        assert len(line["tokens"]) == len(line["logp"]) == len(line["trained"]) <= 6
        assert line["version"] == line["step"]
    groups = [[line["advantage"] for line in lines[i : i + 4]] for i in range(0, 32, 4)]
    assert all(abs(sum(group)) < 1e-6 for group in groups)


def test_columns_reach_the_rewards_and_what_they_log_is_logged(tmp_path):
    def by_column(prompts, completions, k, trainer_state, log_metric, log_extra, **others):
        log_metric("k_mean", sum(k) / len(k))
        log_extra("k_seen", [str(one) for one in k])
        assert len(prompts) == len(completions) == len(k)
        return [float(one % 3) + trainer_state.global_step for one in k]

    made("grpo", tmp_path, [by_column, even], max_steps=1, reward_weights=[2.0, 0.0]).train()
    for line in read_samples(tmp_path):
        number = int(line["group"].split(":")[1])
        assert line["extras"] == {"k_seen": str(number)}
        assert line["reward"] == 2.0 * (number % 3)
    assert logged(tmp_path, "k_mean") == [sum(int(line["group"].split(":")[1]) for line in read_samples(tmp_path)) / 16]
    assert logged(tmp_path, "frac_reward_zero_std") == [1.0]


def test_adaptive_entropy_is_part_of_a_checkpoint(tmp_path):
    """Above the target of 0.2 nats the coefficient falls by 0.005 a step, down to its least."""
    options = {"use_adaptive_entropy": True, "entropy_coef": 0.02, "entropy_coef_min": 0.012, "save_strategy": "steps", "save_steps": 1}
    made("grpo", tmp_path, max_steps=1, **options).train()
    assert logged(tmp_path, "entropy_coef") == [0.0], "above its target there is no bonus"
    state = json.loads((tmp_path / "checkpoint-1" / "loop_state.json").read_text())["method"]
    assert state["entropy"][0] == pytest.approx(0.015)
    assert state["entropy"][1] > 3.0
    assert state["version"] == 1


@kinds
def test_a_reward_that_fails_is_refused_before_the_model_is_loaded(kind, tmp_path):
    """The model's folder does not exist, and nobody has come to look for it."""

    def broken(completions, k, **columns):
        return [columns["answer"] for _ in completions]

    with pytest.raises(RewardError, match=r"^The reward 'broken' fails on row 0 with a made-up answer: it raised KeyError: .*'answer'"):
        made(kind, tmp_path, broken, model=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("share", [0.2, 0.0])
def test_too_many_failures_end_a_run(share, tmp_path):
    """It fails on what the model says, never on what is made up: a quarter of the completions, by their number of tokens' sum."""

    def fussy(completion_ids, **columns):
        if any(token > 9 and token % 2 for ids in completion_ids for token in ids):
            raise ValueError("an odd token")
        return [1.0 for _ in completion_ids]

    trainer = made("grpo", tmp_path, fussy, max_reward_failures=share)
    with pytest.raises(
        RewardError, match=r"of the last 16 completions have no reward because a function failed, more than max_reward_fail"
    ):
        trainer.train()
    assert trainer.state.global_step == 0


def test_failures_that_are_allowed_are_counted(tmp_path):
    def fussy(sample):
        if sample.completion_ids[0] % 4 == 3:
            raise ValueError("a token")
        return float(sample.completion_ids[0] % 2)

    made("grpo", tmp_path, fussy, max_steps=2, max_reward_failures=1.0).train()
    failed = logged(tmp_path, "rewards/failed")
    assert 0 < sum(failed) < 2
    lines = list(read_samples(tmp_path))
    assert sum(line["reward"] is None for line in lines) == pytest.approx(16 * sum(failed))
    assert all(line["advantage"] == 0.0 for line in lines if line["reward"] is None)


@kinds
def test_the_second_argument_is_the_rewards(kind, tmp_path):
    trainer, config = KINDS[kind]
    with pytest.raises(ConfigError, match=rf"^The second argument of {trainer.__name__} is reward_funcs, as in TRL; write args="):
        trainer(tiny_llama(), config(output_dir=str(tmp_path)), train_dataset=ROWS)


def test_no_reward_at_all(tmp_path):
    with pytest.raises(RewardError, match="There is no reward to learn from"):
        made("grpo", tmp_path, None)


def test_rows_without_a_prompt(tmp_path):
    with pytest.raises(ValueError, match="prompt"):
        made("grpo", tmp_path, rows=[{"text": "w1 w2"}])


def test_a_stream_of_prompts_is_refused(tmp_path):
    from datasets import IterableDataset

    stream = IterableDataset.from_generator(lambda: iter(ROWS))
    with pytest.raises(ConfigError, match="Prompts are drawn by their number, which a stream has not"):
        made("grpo", tmp_path, rows=stream)


def test_conversations(tmp_path):
    """The reward sees messages where the row has messages."""

    def spoken(prompts, completions, **columns):
        assert all(prompt[0]["role"] == "user" for prompt in prompts)
        return [float(len(one[0]["content"])) for one in completions]

    rows = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
    made("rloo", tmp_path, spoken, rows=rows, max_steps=1).train()
    line = next(read_samples(tmp_path))
    assert line["completion"][0]["role"] == "assistant"
    assert line["prompt"].split()[-2:] == ["<|im_start|>", "assistant"]


def test_evaluation_alone(tmp_path):
    """Without anything to train on; by sampling once, at temperature 0."""
    trainer = made("grpo", tmp_path, rows=None, eval_dataset={"a": ROWS[:3], "b": ROWS[3:5]}, eval_sampling={"temperature": 0})
    found = trainer.evaluate()
    assert 0 <= found["eval_a_accuracy"] <= 1
    assert {line["set"] for line in read_samples(tmp_path)} == {"eval_a", "eval_b"}
    assert len(list(read_samples(tmp_path))) == 5
    again = trainer.evaluate()
    assert again["eval_a_reward"] == found["eval_a_reward"]


def test_the_rewards_processes_end_with_their_trainer(tmp_path):
    trainer = made("grpo", tmp_path, max_steps=1)
    trainer.train()
    pid = trainer.rewards.pool.zygote_pid
    os.kill(pid, 0)
    del trainer
    gc.collect()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("the process that runs the rewards is still there")
