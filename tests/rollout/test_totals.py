"""From what each reward says of a completion to the one number that is learnt from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from burnish.ops.advantages import total_reward
from burnish.rewards.samples import Failure
from burnish.rollout.groups import Group, Prompt, Rollout
from burnish.rollout.judging import reward_table

FAILED = Failure("raised KeyError")


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.5, None, 2.0], 1.0),  # 1·0.5 + 0.25·2
        ([0.5, FAILED, 2.0], None),
        ([None, None, None], None),
        ([None, FAILED, None], None),
        ([0.0, None, None], 0.0),
        ([-1.0, 2.0, 4.0], 6.0),  # -1 + 3·2 + 0.25·4
    ],
)
def test_totals(rewards, expected):
    """A sum over the rewards that have something to say; none, and not 0, where one failed or none has."""
    rollout = Rollout(sample=0, paths=(), completion="", finish_reason="stop", rewards=tuple(rewards))
    prompt = Prompt(place="rows:0", draw="0:1:rows:0", row={}, token_ids=np.ones(1, np.int32))
    table = reward_table([Group(prompt=prompt, rollouts=(rollout,))])
    reward_B, valid_B = total_reward(table.reward_BK, table.valid_BK, torch.tensor([1.0, 3.0, 0.25]))
    assert (reward_B.item() if valid_B.item() else None) == expected
