"""Environments through the trainer: who is asked, what is trained, and what is refused."""

from __future__ import annotations

import pytest

from burnish import GRPOConfig, GRPOTrainer
from burnish.config.values import ConfigError
from burnish.demo import load_path
from burnish.report.samples import read_samples
from burnish.rollout.environments import Environment

ROWS = [{"prompt": [{"role": "user", "content": f"Add {n} and 2."}], "secret": n} for n in range(4)]


class Twice(Environment):
    """Whatever is said, it asks once more, and counts the letters of both turns."""

    def reset(self, row):
        self.turns, self.secret = 0, row["secret"]

    def step(self, message):
        self.turns += 1
        return "Go on.", float(len(message["content"])), self.turns == 2


class Mute:
    """As in TRL, without a `get_reward`."""

    def reset(self, **row):
        return None


def trainer(folder, *, rows=ROWS, reward_funcs=None, **more):
    options = {"batch_size": 2, "num_generations": 2, "max_completion_length": 30, "max_steps": 1, "compute_dtype": "float32"}
    options |= {"logging_steps": 1, "disable_tqdm": True, "save_strategy": "no", "reward_workers": 1, "stop": ["=", "0", "1"], "seed": 3}
    options |= more.pop("options", {})
    return GRPOTrainer(str(load_path()), reward_funcs, GRPOConfig(output_dir=str(folder), **options), train_dataset=rows, **more)


def length(sample) -> float:
    return float(len(sample.completion_ids))


def test_what_stands_between_turns_is_not_trained(tmp_path):
    """The environment's reward stands first, and a function's beside it; of all tokens those that the model sampled are trained."""
    one = trainer(tmp_path, environment_factory=Twice, reward_funcs=length)
    assert one.reward_names == ["Twice", "length"]
    one.train()
    tokenizer, several = one.processing_class, 0
    for line in read_samples(tmp_path):
        assert set(line["rewards"]) == {"Twice", "length"}
        assert line["rewards"]["length"] == len(line["tokens"])
        between = [token for token, trained in zip(line["tokens"], line["trained"], strict=True) if not trained]
        if between:
            several += 1
            assert tokenizer.decode(between) == "<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n<|im_start|>assistant\n"
            assert all(logp is None for logp, trained in zip(line["logp"], line["trained"], strict=True) if not trained)
            said = [turn["content"] for turn in line["completion"] if turn["role"] == "assistant"]
            if line["finish_reason"] == "stop":
                assert line["rewards"]["Twice"] == sum(map(len, said))
    assert several
    (logged,) = [line for line in one.state.log_history if "reward" in line]
    assert logged["turns"] == pytest.approx(sum(1 + (0 in line["trained"]) for line in read_samples(tmp_path)) / 4)


def test_rows_without_a_prompt(tmp_path):
    """An environment begins it."""

    class Asks(Twice):
        def reset(self, row):
            super().reset(row)
            return [{"role": "user", "content": f"What is {row['secret']} plus 1?"}]

    one = trainer(tmp_path, rows=[{"secret": n} for n in range(4)], environment_factory=Asks)
    one.train()
    assert {line["prompt"].count("plus 1?") for line in read_samples(tmp_path)} == {1}


def test_refused(tmp_path):
    with pytest.raises(ConfigError, match="The environment says no reward, and reward_funcs is not given; give it a get_reward"):
        trainer(tmp_path, environment_factory=Mute)
    with pytest.raises(ConfigError, match="max_tool_calling_iterations has no effect without tools or environment_factory"):
        trainer(tmp_path, reward_funcs=length, options={"max_tool_calling_iterations": 2})
