"""Rollouts as steps: epochs, samplings for several steps, groups that are replaced, what is left out, and a checkpoint in between."""

from __future__ import annotations

import json
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from burnish.config.grpo import GRPOConfig
from burnish.data.dataset import as_dataset
from burnish.distributed.launch import Launch
from burnish.methods import grpo
from burnish.report.samples import SampleFiles, read_samples
from burnish.rewards.samples import Failure, RewardError
from burnish.rewards.total import FailureCount
from burnish.rollout.collect import Collector, OneTurn
from burnish.rollout.drawing import Prompts
from burnish.rollout.sampler import Completion, Sampling
from burnish.rollout.source import RolloutBatches, Wiring

FAILURE = Failure("raised KeyError")
CONTEXT, LENGTH = 3, 2


class Script:
    """Samples two tokens for each request, and says what is asked of it. `rewards`: of each draw of a row, group by group."""

    exact = True

    def __init__(self, rewards, *, cut_off=()):
        self.rewards, self.cut_off = rewards, cut_off
        self.version, self.asked, self.steps = 0, [], []

    def update(self, version):
        self.version = version

    def sample(self, requests, sampling, then=None):
        self.asked.append([request.prompt_id for request in requests if not request.sample])
        for request in reversed(requests):  # the last one ends first
            place = request.prompt_id.split(":", 2)[2]
            reason = "length" if (place, request.sample) in self.cut_off else "stop"
            ids = np.array([10 + request.sample, 3], np.int32)
            made = Completion(
                request=request, token_ids=ids, logp=np.float32([-1.0 - request.sample / 3, -0.1]), sampled_logp=None,
                finish_reason=reason, policy_version=self.version,
            )  # fmt: skip
            assert then(made) is None
            yield made

    def submit(self, samples, step):
        self.steps.append(step)
        future = Future()
        future.set_result((samples[0].columns["rewards"][: len(samples)], step))
        return future

    def finish(self, samples, given):
        rows, _ = given
        return SimpleNamespace(rewards=[[one] for one in rows], extras={}, metrics={}, seconds=[0.0])


class Tokenizer:
    def decode(self, ids, skip_special_tokens=False):
        return " ".join(map(str, ids))


def made(tmp_path, rewards, *, cut_off=(), score=None, keep_all=False, max_tokens=1000, phases=None, beside=lambda: 0.0, **options):
    """A source over a row for each of `rewards`, in their order, with two completions of each prompt."""
    pinned = {"batch_size": 2, "num_generations": len(rewards[0]), "train_sampling_strategy": "sequential", "max_reward_failures": 1.0}
    args, script, said, state = GRPOConfig(**(pinned | options)), Script(rewards, cut_off=cut_off), [], SimpleNamespace(step=0)
    rows = [{"prompt": f"p{i}", "rewards": [None if one is FAILURE else one for one in given]} for i, given in enumerate(rewards)]
    if any(FAILURE in given for given in rewards):
        script.finish = lambda samples, given: SimpleNamespace(
            rewards=[[FAILURE if one is None else one] for one in given[0]], extras={}, metrics={}, seconds=[0.0]
        )
    render = lambda rows: [np.arange(CONTEXT, dtype=np.int32) for _ in rows]  # noqa: E731
    phase = lambda *told: None if phases is None else phases.append(told)  # noqa: E731
    wiring = Wiring(
        prompts=Prompts(as_dataset(rows), render, seed=0, shuffle=False, max_length=None),
        sampling=Sampling(),
        collect=Collector(script, OneTurn(Tokenizer(), 8, exact=True), script, Launch(), phase=phase),
        judge=lambda groups: grpo.judge(groups, [1.0], None, args),
        rewards=("f",),
        failures=FailureCount(["f"], args.max_reward_failures),
        files=SampleFiles(tmp_path),
        text=lambda ids: f"{len(ids)} tokens",
        steps_done=lambda: state.step,
        say=said.append,
        phase=phase,
        beside=beside,
        score=score,
        keep_all=keep_all,
    )
    return SimpleNamespace(batches=RolloutBatches(wiring, args, max_tokens, Launch()), script=script, state=state, said=said)


def taken(source, count, cursor=(0, 0)):
    """So many steps, as the loop takes them."""
    found, steps = [], source.batches.steps(cursor)
    for _ in range(count):
        found.append(next(steps))
        source.state.step += 1
    return found


def groups_of(step):
    """Which groups are in a step, those without a token too."""
    return sorted({group for tree in step.trees for group in tree.group_ids if group != "nothing"})


UNLIKE = (0.0, 1.0)
TIED = (1.0, 1.0)


def test_epochs(tmp_path):
    """Five prompts in steps of two: the last step of an epoch has one, and the next begins with the first prompt."""
    source = made(tmp_path, [UNLIKE] * 5)
    assert source.batches.steps_per_epoch == 3
    steps = taken(source, 4)
    assert [groups_of(step) for step in steps] == [["rows:0", "rows:1"], ["rows:2", "rows:3"], ["rows:4"], ["rows:0", "rows:1"]]
    assert [step.cursor for step in steps] == [(0, 2), (0, 4), (1, 0), (1, 2)]
    assert [step.epoch for step in steps] == [pytest.approx(one) for one in (0.4, 0.8, 1.0, 1.4)]
    assert source.script.asked[3] == ["1:1:rows:0", "1:2:rows:1"], "another draw of the same rows"
    assert source.script.steps == [0, 0, 1, 1, 2, 3, 3], "which step asks"


def test_it_says_what_goes_on(tmp_path):
    """Two prompts with two completions each, and a second step of the same sampling."""
    phases = []
    taken(made(tmp_path, [UNLIKE] * 2, num_iterations=2, phases=phases), 2)
    sampled = [("sampling", done, 4) for done in range(5)]
    assert phases == [*sampled, ("scoring", 0, 2), ("scoring", 1, 2), ("judging", 0, 0), ("training", 0, 0), ("training", 0, 0)]


def test_evaluating_and_saving_are_not_training(tmp_path, monkeypatch):
    """Ten seconds until the next step is asked for, four of them beside the training."""
    now, beside = [0.0], [7.0]
    monkeypatch.setattr("burnish.rollout.source.time.monotonic", lambda: now[0])
    steps = made(tmp_path, [UNLIKE] * 4, beside=lambda: beside[0]).batches.steps((0, 0))
    assert "time/training" not in next(steps).metrics
    now[0], beside[0] = 10.0, 11.0
    assert next(steps).metrics["time/training"] == (6.0, 1)


def test_advantages_reach_the_trees(tmp_path):
    """Rewards 0 and 1: ∓½ / (√½ + 1e-4); the completions are in the order of their numbers, though the last one ended first."""
    (step,) = taken(made(tmp_path, [UNLIKE]), 1)
    (tree,) = step.trees
    assert tree.advantage_B.tolist() == [pytest.approx(-0.7070068), pytest.approx(0.7070068)]
    assert tree.target_N.tolist() == [10, 3, 11, 3]
    assert tree.behaviour_logp_N.tolist() == pytest.approx([-1.0, -0.1, -4 / 3, -0.1])
    assert tree.policy_version_B.tolist() == [0, 0]
    assert tree.sampled_logp_N is None


def test_a_sampling_for_several_steps_that_are_each_taken_several_times(tmp_path):
    """Two steps of two prompts at once, the pair of them twice: four steps of one version, then a sampling of the next."""
    source = made(tmp_path, [UNLIKE] * 6, num_iterations=2, steps_per_generation=2)
    assert source.batches.steps_per_epoch == (2 + 1) * 2
    steps = taken(source, 7)
    assert [groups_of(step) for step in steps] == [
        ["rows:0", "rows:1"], ["rows:2", "rows:3"], ["rows:0", "rows:1"], ["rows:2", "rows:3"], ["rows:4", "rows:5"], ["rows:4", "rows:5"],
        ["rows:0", "rows:1"],
    ]  # fmt: skip
    assert list(map(len, source.script.asked)) == [4, 2, 4]
    assert [int(step.trees[0].policy_version_B[0]) for step in steps] == [0, 0, 0, 0, 4, 4, 6]
    assert [step.cursor for step in steps] == [(0, 1), (0, 1), (0, 1), (0, 4), (0, 4), (1, 0), (1, 1)]
    assert [round(step.epoch * 6, 9) for step in steps] == [1, 2, 3, 4, 5, 6, 7], "four prompts of six in four steps, and two in two"
    rewarded = [step.metrics.get("reward") for step in steps]
    assert rewarded == [(4.0, 8), None, None, None, (2.0, 4), None, (4.0, 8)], "measured once for each sampling"


def test_a_group_without_signal_costs_nothing_and_counts(tmp_path):
    """Of a tied group there is no token in the tree; the other has its prompt and 2 · 2 tokens. With `keep_all` there are two of these."""
    (step,) = taken(made(tmp_path, [UNLIKE, TIED]), 1)
    (tree,) = step.trees
    assert (tree.T, tree.N, step.tokens, step.trained) == (CONTEXT + 2 * LENGTH, 4, 7, 4)
    assert tree.left_out_B.tolist() == [0, 0, LENGTH, LENGTH]
    (kept,) = taken(made(tmp_path / "kept", [UNLIKE, TIED], keep_all=True), 1)
    assert sum(tree.T for tree in kept.trees) == 2 * (CONTEXT + 2 * LENGTH)


def test_a_step_of_tied_groups_is_a_step_of_one_token(tmp_path):
    source = made(tmp_path, [TIED] * 2)
    steps = taken(source, 4)
    assert [tree.T for step in steps for tree in step.trees] == [1] * 4
    assert [sum(tree.left_out_B.tolist()) for step in steps for tree in step.trees] == [4 * LENGTH] * 4
    assert [step.metrics["frac_groups_with_signal"] for step in steps] == [(0, 2)] * 4
    assert len(source.said) == 1
    assert source.said[0].startswith("Every group is tied, all rewards 1: ")


def test_a_large_group_is_cut(tmp_path):
    """A prompt of 3 and four completions of 2, 7 tokens at a time."""
    (step,) = taken(made(tmp_path, [(0.0, 1.0, 0.5, 2.0)], max_tokens=7), 1)
    assert [(tree.T, tree.B) for tree in step.trees] == [(7, 2), (7, 2)]


def test_dynamic_sampling_replaces_groups_without_signal(tmp_path):
    """Of the first two prompts one is tied, its place is taken by the fourth: the third is tied, too. The next step begins at the fifth."""
    source = made(tmp_path, [UNLIKE, TIED, TIED, UNLIKE, UNLIKE, UNLIKE], dynamic_sampling=True)
    first, second = taken(source, 2)
    assert (groups_of(first), groups_of(second)) == (["rows:0", "rows:3"], ["rows:4", "rows:5"])
    assert source.script.asked == [["0:1:rows:0", "0:2:rows:1"], ["0:3:rows:2"], ["0:4:rows:3"], ["0:5:rows:4", "0:6:rows:5"]]
    assert first.metrics["dynamic_sampling/rounds"] == (3, 1)
    assert first.metrics["dynamic_sampling/dropped"] == (2, 1)
    assert first.metrics["reward"] == (6.0, 8), "over all that were sampled"
    assert first.cursor == (0, 4)
    sets = [(line["set"], line["group"]) for line in read_samples(tmp_path) if line["step"] == 0 and not line["sample"]]
    assert sets == [("train", "rows:0"), ("train", "rows:3"), ("train, dropped", "rows:1"), ("train, dropped", "rows:2")]


def test_dynamic_sampling_ends_with_its_rounds_and_with_the_epoch(tmp_path):
    source = made(tmp_path, [UNLIKE, TIED, TIED, UNLIKE], dynamic_sampling=True, dynamic_sampling_rounds=1)
    assert [groups_of(step) for step in taken(source, 2)] == [["rows:0"], ["rows:3"]]
    source = made(tmp_path / "end", [UNLIKE, TIED, TIED], dynamic_sampling=True)
    steps = taken(source, 2)
    assert [groups_of(step) for step in steps] == [["rows:0"], ["rows:0"]]
    assert [step.cursor for step in steps] == [(1, 0), (2, 0)]


def test_where_no_group_has_a_signal_the_step_is_one_without_a_gradient(tmp_path):
    source = made(tmp_path, [TIED] * 4, dynamic_sampling=True, dynamic_sampling_rounds=1)
    (step,) = taken(source, 1)
    assert [tree.T for tree in step.trees] == [1]
    assert groups_of(step) == ["rows:0", "rows:1"]
    assert step.metrics["dynamic_sampling/dropped"] == (2, 1)


def test_a_failed_reward_is_in_no_mean(tmp_path):
    """Rewards 1, 0 and a failure: the third completion is in no tree, and the others have the advantages of two, ±½ / (√½ + 1e-4)."""
    source = made(tmp_path, [(1.0, 0.0, FAILURE)])
    (step,) = taken(source, 1)
    (tree,) = step.trees
    assert tree.advantage_B.tolist() == [pytest.approx(0.7070068), pytest.approx(-0.7070068)]
    assert step.metrics["reward"] == (1.0, 2)
    assert step.metrics["rewards/failed"] == (1, 3)
    assert [line["reward"] for line in read_samples(tmp_path)] == [1.0, 0.0, None]


def test_a_group_whose_rewards_all_failed_is_in_no_tree(tmp_path):
    (step,) = taken(made(tmp_path, [(FAILURE, FAILURE)]), 1)
    assert (groups_of(step), [tree.T for tree in step.trees]) == ([], [1])


def test_too_many_failures_end_the_run(tmp_path):
    source = made(tmp_path, [(1.0, FAILURE)], max_reward_failures=0.4)
    with pytest.raises(RewardError, match="1 of the last 2 completions have no reward because a function failed"):
        taken(source, 1)


def test_completions_that_were_cut_off_are_left_alone_where_that_is_asked(tmp_path):
    """Rewards 1, 0 and ½, the second cut off: it is part of the baseline, as its reward is true, and of no tree."""
    rewards, cut_off = [(1.0, 0.0, 0.75)], {("rows:0", 1)}
    (step,) = taken(made(tmp_path, rewards, cut_off=cut_off, mask_truncated_completions=True), 1)
    (tree,) = step.trees
    (all_of_them,) = taken(made(tmp_path / "all", rewards, cut_off=cut_off), 1)
    assert tree.B == 2
    assert tree.advantage_B.tolist() == all_of_them.trees[0].advantage_B.tolist()[::2]
    assert tree.target_N.tolist() == [10, 3, 12, 3]


def test_log_probs_of_the_trainer_in_place_of_a_servers(tmp_path):
    def score(examples):
        return [np.arange(one.trained_tokens, dtype=np.float32) - 9 for one in examples]

    (step,) = taken(made(tmp_path, [UNLIKE], score=score), 1)
    assert step.trees[0].behaviour_logp_N.tolist() == [-9.0, -8.0, -7.0, -6.0]


@pytest.mark.parametrize("stop", range(1, 8))
def test_continued_from_a_checkpoint_to_the_bit(tmp_path, stop):
    """At every step of samplings that last four, with groups dropped: the same trees, cursors, questions to the sampler and samples."""
    rewards = [UNLIKE, TIED, UNLIKE, (0.25, 1 / 3), TIED, UNLIKE, UNLIKE, (2.0, 1.0), UNLIKE]
    options = {"num_iterations": 2, "steps_per_generation": 2, "dynamic_sampling": True}
    whole = made(tmp_path / "whole", rewards, **options)
    wanted = taken(whole, 8)
    first = made(tmp_path / "stopped", rewards, **options)
    cursor = taken(first, stop)[-1].cursor
    state, tensors = json.loads(json.dumps(first.batches.state())), first.batches.tensors()
    first.batches.steps(cursor)
    first.state.step = 99  # what is sampled after the checkpoint is lost
    if not tensors:
        next(first.batches.steps(cursor))
    again = made(tmp_path / "stopped", rewards, **options)
    again.batches.restore(state, tensors)
    again.state.step = stop
    found = taken(again, 8 - stop, cursor)
    assert [step.cursor for step in found] == [step.cursor for step in wanted[stop:]]
    assert [step.epoch for step in found] == [step.epoch for step in wanted[stop:]]
    assert [known(step) for step in found] == [known(step) for step in wanted[stop:]]
    assert list(read_samples(tmp_path / "stopped")) == list(read_samples(tmp_path / "whole"))
    asked = sum(1 for step in wanted[stop:] if "reward" in step.metrics)
    assert again.script.asked == whole.script.asked[len(whole.script.asked) - len(again.script.asked) :]
    assert bool(again.script.asked) == bool(asked)


def known(step):
    parts = [(t.token_ids_T, t.advantage_B, t.behaviour_logp_N, t.policy_version_B, t.left_out_B) for t in step.trees]
    return [[None if one is None else one.numpy().tobytes() for one in part] for part in parts]


def test_another_epoch_is_begun_by_its_cursor(tmp_path):
    """As the loop does where a callback ends an epoch: what was pending is forgotten."""
    source = made(tmp_path, [UNLIKE] * 6, steps_per_generation=2)
    (first,) = taken(source, 1)
    assert first.cursor == (0, 1)
    (other,) = taken(source, 1, (1, 0))
    assert source.script.asked[-1] == [f"1:{i + 1}:rows:{i}" for i in range(4)]
    assert groups_of(other) == ["rows:0", "rows:1"]


def test_a_run_that_begins_anew_leaves_no_samples_of_another(tmp_path):
    taken(made(tmp_path, [UNLIKE]), 1)
    source = made(tmp_path, [UNLIKE])
    source.batches.begin_anew()
    assert list(read_samples(tmp_path)) == []
    taken(source, 1)
    assert len(list(read_samples(tmp_path))) == 2
