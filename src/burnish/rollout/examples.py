"""Groups with their advantages as examples to learn from, and as lines of `samples.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from burnish.rewards.samples import Failure, Reward
from burnish.rollout.groups import Group, Judged, Path, Rollout
from burnish.types import Branch, Example, Segment


def examples_of(group: Group, taken: Sequence[bool], advantages: Sequence[float], *, keep_all: bool) -> list[Example]:
    """The rollouts that are `taken`, as the branches of one example; a rollout whose history was rewritten adds examples of its own.

    Nothing can be learnt from a completion whose advantage is 0: its tokens are left out, and counted, unless `keep_all`.
    """
    shared, own = [], list[Example]()
    for rollout, mine, advantage in zip(group.rollouts, taken, advantages, strict=True):
        for path in rollout.paths if mine else ():
            branch = _branch(path, advantage, keep_all)
            if path.own_prompt:
                own.append(Example(group_id=group.prompt.place, prompt=(), branches=(branch,)))
            else:
                shared.append(branch)
    prompt = Segment(token_ids=group.prompt.token_ids, source="prompt", trained=False)
    together = [Example(group_id=group.prompt.place, prompt=(prompt,), branches=tuple(shared))] if shared else []
    return together + own


def _branch(path: Path, advantage: float, keep_all: bool) -> Branch:
    if advantage or keep_all:
        return Branch(segments=path.segments, advantage=advantage)
    return Branch(segments=(), advantage=0.0, left_out=sum(len(segment) for segment in path.segments if segment.trained))


def with_behaviour(example: Example, logp: np.ndarray) -> Example:
    """With the log-probs of all its targets, `[trained_tokens]` branch by branch, in place of those that the sampler gave."""
    rest = logp
    branches = []
    for branch in example.branches:
        segments = []
        for segment in branch.segments:
            if segment.trained:
                mine, rest = rest[: len(segment)], rest[len(segment) :]
                segment = replace(segment, behaviour_logp=mine)
            segments.append(segment)
        branches.append(replace(branch, segments=tuple(segments)))
    return replace(example, branches=tuple(branches))


def packed(steps: Sequence[Sequence[Example]]) -> bytes:
    """As JSON, from which `unpacked` gives the same to the bit."""
    plain = [[{**asdict(example), "ref_logp": None} for example in step] for step in steps]
    return json.dumps(plain, default=lambda array: array.tolist()).encode()


def unpacked(content: bytes) -> list[tuple[Example, ...]]:
    return [tuple(map(_example, step)) for step in json.loads(content)]


def _example(plain: Mapping[str, Any]) -> Example:
    branches = tuple(Branch(**{**branch, "segments": _segments(branch["segments"])}) for branch in plain["branches"])
    return Example(**{**plain, "prompt": _segments(plain["prompt"]), "branches": branches})


def _segments(plain: Sequence[Mapping[str, Any]]) -> tuple[Segment, ...]:
    def array(values: Any) -> np.ndarray | None:
        return None if values is None else np.asarray(values, dtype=np.float32)

    return tuple(
        Segment(**{**one, "behaviour_logp": array(one["behaviour_logp"]), "sampled_logp": array(one["sampled_logp"])}) for one in plain
    )


def lines_of(
    groups: Sequence[Group], judged: Judged, *, step: int, name: str, names: Sequence[str], text: Callable[[np.ndarray], str]
) -> list[dict[str, Any]]:
    """Lines of `samples.jsonl`, one for each rollout. `name`: of the set; `names`: of the reward functions; `text`: of token ids."""
    lines = []
    references: Sequence[Sequence[np.ndarray | None]] = judged.ref_logps or [[None] * len(group.rollouts) for group in groups]
    for group, rewards, advantages, known in zip(groups, judged.rewards, judged.advantages, references, strict=True):
        prompt = text(group.prompt.token_ids)
        for rollout, reward, advantage, reference in zip(group.rollouts, rewards, advantages, known, strict=True):
            line = _line(rollout) | {"reward": reward, "advantage": advantage}
            if reference is not None:
                line["ref_logp"] = _spread(rollout, reference)
            line |= {"rewards": dict(zip(names, map(_plain, rollout.rewards), strict=True))}
            asked = {"prompt": prompt, "prompt_tokens": _asked(group, rollout)}
            lines.append({"step": step, "set": name, "group": group.prompt.place, **asked, **line})
    return lines


def _asked(group: Group, rollout: Rollout) -> np.ndarray:
    """Token ids before the rollout's own; none where it brings all of them."""
    return group.prompt.token_ids[:0] if rollout.paths[0].own_prompt else group.prompt.token_ids


def _line(rollout: Rollout) -> dict[str, Any]:
    segments = rollout.segments
    versions = [segment.policy_version for segment in segments if segment.policy_version is not None]
    return {
        "sample": rollout.sample,
        "completion": rollout.completion,
        "finish_reason": rollout.finish_reason,
        "tokens": rollout.token_ids,
        "logp": [value for segment in segments for value in _rounded(segment.behaviour_logp, len(segment))],
        "sampled_logp": [value for segment in segments for value in _rounded(segment.sampled_logp, len(segment))],
        "trained": [int(segment.trained) for segment in segments for _ in range(len(segment))],
        "version": min(versions, default=None),
        "extras": dict(rollout.extras),
    }


def _spread(rollout: Rollout, logp: np.ndarray) -> list[float | None]:
    """Of the sampled tokens, beside all tokens."""
    rest, found = iter(_rounded(logp, len(logp))), list[float | None]()
    for segment in rollout.segments:
        found += [next(rest) if segment.trained else None for _ in range(len(segment))]
    return found


def _rounded(logp: np.ndarray | None, length: int) -> list[float | None]:
    if logp is None:
        return [None] * length
    return [None if np.isnan(value) else round(float(value), 4) for value in logp]


def _plain(reward: Reward) -> float | Mapping[str, str] | None:
    return {"failure": reward.reason, "detail": reward.detail} if isinstance(reward, Failure) else reward
