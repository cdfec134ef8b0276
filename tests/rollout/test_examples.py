"""Groups as examples, as bytes and as lines."""

import json
from dataclasses import replace

import numpy as np
import pytest

from burnish.data.tree import build_tree, split_example
from burnish.rewards.samples import Failure
from burnish.rollout.examples import examples_of, lines_of, packed, unpacked, with_behaviour
from burnish.rollout.groups import Group, Judged, Path
from burnish.types import Segment
from tests.rollout.made import group, prompt, rollout, said


def test_advantages_are_the_branches():
    """Of rewards 1, 0, ½ with advantages 1, -1, 0: two branches, and one whose two tokens are counted but not computed."""
    (one,) = examples_of(group(1.0, 0.0, 0.5), [True] * 3, [1.0, -1.0, 0.0], keep_all=False)
    assert [branch.advantage for branch in one.branches] == [1.0, -1.0, 0.0]
    assert [branch.left_out for branch in one.branches] == [0, 0, 2]
    assert (len(one), one.trained_tokens, one.group_id) == (3 + 2 + 2, 4, "rows:0")
    (kept,) = examples_of(group(1.0, 0.0, 0.5), [True] * 3, [1.0, -1.0, 0.0], keep_all=True)
    assert [branch.left_out for branch in kept.branches] == [0, 0, 0]
    assert len(kept) == 9


def test_what_is_not_taken_is_nowhere():
    (one,) = examples_of(group(1.0, 0.0, 0.5), [True, False, True], [1.0, 0.0, -1.0], keep_all=False)
    assert [branch.advantage for branch in one.branches] == [1.0, -1.0]
    assert examples_of(group(1.0, 0.0), [False, False], [0.0, 0.0], keep_all=True) == []


def test_a_rewritten_history_is_an_example_of_its_own():
    context = Segment(token_ids=[1, 2, 9], source="prompt", trained=False)
    paths = (Path(segments=(said(-1.0),)), Path(segments=(context, said(-1.0, -3.0)), own_prompt=True))
    both = Group(prompt=prompt(), rollouts=(rollout(0, paths=paths), rollout(1)))
    shared, own = examples_of(both, [True, True], [0.5, -0.5], keep_all=False)
    assert ([branch.advantage for branch in shared.branches], len(shared)) == ([0.5, -0.5], 3 + 1 + 2)
    assert (own.prompt, own.branches[0].advantage, own.group_id, len(own)) == ((), 0.5, "rows:0", 5)


def test_left_out_costs_no_token_and_counts_all_the_same():
    """A prompt of 3 with completions of 2, 2 and 2 tokens, the middle one left out: 7 tokens in the tree, and 2, 2, 2 in the means."""
    (one,) = examples_of(group(1.0, 0.5, 0.0), [True] * 3, [1.0, 0.0, -1.0], keep_all=False)
    tree = build_tree([one])
    assert (tree.T, tree.N, tree.B) == (7, 4, 3)
    assert tree.left_out_B.tolist() == [0, 2, 0]
    assert tree.policy_version_B.tolist() == [0, -1, 0]


def test_log_probs_in_place_of_the_samplers():
    tool = Segment(token_ids=[1, 1], source="tool", trained=False)
    both = Group(prompt=prompt(), rollouts=(rollout(0, said(-1.0), tool, said(-2.0, -3.0)), rollout(1, said(-4.0))))
    (one,) = examples_of(both, [True, True], [1.0, -1.0], keep_all=False)
    again = with_behaviour(one, np.array([-10.0, -20.0, -30.0, -40.0]))
    assert [s.behaviour_logp.tolist() for b in again.branches for s in b.segments if s.trained] == [[-10.0], [-20.0, -30.0], [-40.0]]
    assert again.branches[0].segments[1].behaviour_logp is None


def test_packed_and_unpacked_to_the_bit():
    """Log-probs that have no short decimal form, left-out branches, tools' tokens, versions and both kinds of log-probs."""
    rng = np.random.default_rng(0)
    logps = rng.normal(size=5).astype(np.float32)
    segment = said(*logps, version=7, sampled_logp=rng.normal(size=5).astype(np.float32))
    tool = Segment(token_ids=[1, 1], source="tool", trained=False)
    made = examples_of(
        Group(prompt=prompt(), rollouts=(rollout(0, segment, tool, said(*logps[:2])), rollout(1))), [True] * 2, [1 / 3, 0.0], keep_all=False
    )
    steps = [tuple(made), (), (made[0], made[0])]
    again = unpacked(packed(steps))
    assert [len(step) for step in again] == [1, 0, 2]
    for ours, theirs in zip(again[0], made, strict=True):
        assert (ours.group_id, ours.margin, ours.ref_logp) == (theirs.group_id, None, None)
        for one, other in zip(ours.branches, theirs.branches, strict=True):
            assert (one.advantage, one.left_out) == (other.advantage, other.left_out)
            for mine, wanted in zip(one.segments, other.segments, strict=True):
                assert (mine.source, mine.trained, mine.policy_version) == (wanted.source, wanted.trained, wanted.policy_version)
                assert mine.token_ids.tolist() == wanted.token_ids.tolist()
                for name in ("behaviour_logp", "sampled_logp"):
                    values = [vars_of(part)[name] for part in (mine, wanted)]
                    assert [None if value is None else np.asarray(value, np.float32).tobytes() for value in values][0] == (
                        None if values[1] is None else np.asarray(values[1], np.float32).tobytes()
                    )
    assert packed(again) == packed(steps)


def vars_of(segment):
    return {"behaviour_logp": segment.behaviour_logp, "sampled_logp": segment.sampled_logp}


def test_a_group_that_is_cut_keeps_its_left_out_branches():
    """A budget of 5 tokens holds the prompt of 3 and one completion of 2."""
    (one,) = examples_of(group(1.0, 0.5, 0.0, 0.25), [True] * 4, [1.0, 0.0, -1.0, -0.5], keep_all=False)
    parts = split_example(one, 5)
    assert [[branch.left_out for branch in part.branches] for part in parts] == [[0, 2], [0], [0]]
    assert sum(part.trained_tokens for part in parts) == 6


def test_lines():
    failed = rollout(1, said(-0.12345, -2.0), rewards=(Failure("raised KeyError", "'x'"), 2.0), reason="length", extras={"seen": "3"})
    both = Group(prompt=prompt(), rollouts=(rollout(0, rewards=(1.0, None)), failed))
    judged = Judged(rewards=((1.0, None),), advantages=((0.5, 0.0),), signal=(True,))
    first, second = lines_of([both], judged, step=3, name="train", names=("f", "g"), text=lambda ids: f"{len(ids)} tokens")
    assert {name: first[name] for name in ("step", "set", "group", "sample", "prompt", "reward", "advantage", "rewards")} == {
        "step": 3, "set": "train", "group": "rows:0", "sample": 0, "prompt": "3 tokens", "reward": 1.0, "advantage": 0.5,
        "rewards": {"f": 1.0, "g": None},
    }  # fmt: skip
    assert second["rewards"] == {"f": {"failure": "raised KeyError", "detail": "'x'"}, "g": 2.0}
    assert (second["reward"], second["finish_reason"], second["extras"]) == (None, "length", {"seen": "3"})
    assert (second["logp"], second["trained"], second["version"]) == ([-0.1235, -2.0], [1, 1], 0)
    assert json.dumps({**second, **{name: second[name].tolist() for name in ("tokens", "prompt_tokens")}})


def test_the_reference_stands_beside_the_tokens_that_were_sampled():
    """Of a tool's token it says nothing."""
    tool = Segment(token_ids=[5], source="tool", trained=False)
    one = Group(prompt=prompt(), rollouts=(rollout(0, said(-1.0), tool, said(-2.0)),))
    plain = Judged(rewards=((1.0,),), advantages=((0.0,),), signal=(False,))
    known = replace(plain, ref_logps=([np.array([-1.25, -2.00004])],))
    with_it, without = (lines_of([one], judged, step=0, name="t", names=("f",), text=lambda ids: "")[0] for judged in (known, plain))
    assert (with_it["ref_logp"], with_it["trained"]) == ([-1.25, None, -2.0], [1, 0, 1])
    assert "ref_logp" not in without


@pytest.mark.parametrize("value", [np.nan, None])
def test_a_log_prob_that_is_not_known_is_null(value):
    segment = said(-1.0) if value is None else said(np.nan)
    if value is None:
        segment = Segment(token_ids=[5], source="tool", trained=False)
    judged = Judged(rewards=((1.0,),), advantages=((0.0,),), signal=(False,))
    (line,) = lines_of(
        [Group(prompt=prompt(), rollouts=(rollout(0, segment),))], judged, step=0, name="t", names=("f",), text=lambda ids: ""
    )
    assert line["logp"] == [None]
