"""Sampling in lanes: the same completions, the same cores afterwards, and what a lane raises."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from burnish.rollout import lanes, local
from burnish.rollout.lanes import dealt, in_lanes, lanes_of
from burnish.rollout.sampler import Request, Sampling
from tests.rollout.sampled import policy_of, sampler_of


def request(prompt: int, sample: int, tokens: int = 20) -> Request:
    ids = np.arange(3 + prompt, 9 + 2 * prompt) % 50 + 3
    return Request(prompt_id=f"p{prompt}", sample=sample, token_ids=ids, max_tokens=tokens - 3 * (sample % 3))


REQUESTS = [request(prompt, sample) for prompt in range(5) for sample in range(4)]


@pytest.fixture
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_contexts_are_dealt_whole_to_the_lane_with_the_fewest_requests() -> None:
    shares = dealt([request(p, s) for p, count in enumerate((4, 2, 1, 1)) for s in range(count)], 2)
    assert [[one.prompt_id for one in share] for share in shares] == [["p0"] * 4, ["p1", "p1", "p2", "p3"]]
    assert dealt([], 1) == [[]]


def test_each_lane_has_its_share_of_the_cores_and_the_caller_has_them_all_again(two_cores) -> None:
    both = threading.Barrier(2)

    def cores() -> tuple[int, int]:
        both.wait(10)
        return torch.get_num_threads(), threading.get_ident()

    with in_lanes(2) as together:
        (first, one), (second, other) = together([cores, cores])
        assert (first, second) == (1, 1)
        assert one != other
        with ThreadPoolExecutor(1) as fresh:  # a thread of somebody else's, which begins with what was said last
            assert fresh.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
        assert together([torch.get_num_threads]) == [2]  # the last lane takes the cores of those that are done


def test_what_a_lane_raises_is_raised_after_the_others_are_done(two_cores) -> None:
    done = []
    with pytest.raises(ZeroDivisionError), in_lanes(2) as together:
        together([partial(divmod, 1, 0), partial(done.append, 1)])
    assert done == [1]
    assert torch.get_num_threads() == 2


def test_two_lanes_sample_what_one_does(two_cores, monkeypatch) -> None:
    policy = policy_of("llama")
    sampling = Sampling(temperature=1.0, stop_token_ids=(7,), seed=3)
    found = {}
    for rows, expected in ((1000, 1), (10, 2)):
        monkeypatch.setattr(lanes, "ROWS", rows)
        assert lanes_of(policy, REQUESTS, 256) == expected
        found[expected] = {(one.request.prompt_id, one.request.sample): one for one in sampler_of(policy).sample(REQUESTS, sampling)}
    assert found[1].keys() == found[2].keys()
    assert len(found[1]) == 20
    for key, one in found[1].items():
        other = found[2][key]
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert one.finish_reason == other.finish_reason
        np.testing.assert_allclose(one.logp, other.logp, atol=1e-5)


def test_lanes_are_the_same_bits_each_time_and_what_follows_stays_in_its_lane(two_cores, monkeypatch) -> None:
    policy = policy_of("llama")
    monkeypatch.setattr(lanes, "ROWS", 10)
    monkeypatch.setattr(local, "BURST", 3)

    def sampled() -> list[tuple[str, int, list[int], bytes]]:
        def then(one):
            again = one.request.sample < 100
            return (
                Request(prompt_id=one.request.prompt_id, sample=one.request.sample + 100, token_ids=one.request.token_ids, max_tokens=4)
                if again
                else None
            )

        completions = sampler_of(policy).sample(REQUESTS, Sampling(seed=1), then)
        return [(one.request.prompt_id, one.request.sample, one.token_ids.tolist(), one.logp.tobytes()) for one in completions]

    first = sampled()
    assert len(first) == 40
    assert first == sampled()
