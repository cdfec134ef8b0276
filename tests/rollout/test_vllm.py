"""A sampler over a vLLM server: against a fake one with faults, and, where BURNISH_VLLM_URL names one, a real one."""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from burnish.rollout.sampler import Request, Sampler, Sampling, SamplingError
from burnish.rollout.vllm import PROBE, VLLMSampler, add_head
from tests.rollout.fake_vllm import FakeVLLM, Trainer, logps, silence
from tests.tiny import tiny_llama

PROBE_IDS = [5, 9, 2, 40, 7, 7, 31, 8, 3]
STOPS = Sampling(stop_token_ids=(77, 78))


@pytest.fixture
def server():
    with FakeVLLM() as fake:
        yield fake


@pytest.fixture
def trainer():
    return Trainer()


@pytest.fixture
def sampler(server, trainer, tmp_path):
    return make(server.url, trainer, tmp_path)


def make(url: str, trainer: Trainer, folder: Path, **options) -> VLLMSampler:
    options = {"timeout": 5.0, **options}
    return VLLMSampler(url, publish=trainer.publish, rescore=trainer.rescore, probe=PROBE_IDS, weights_dir=folder, **options)


def requests(*contexts: list[int], samples: int = 2, max_tokens: int = 9) -> list[Request]:
    return [
        Request(prompt_id=f"0:{p}", sample=k, token_ids=np.array(ids), max_tokens=max_tokens)
        for p, ids in enumerate(contexts)
        for k in range(samples)
    ]


def keys(completions) -> list[tuple[str, int]]:
    return sorted((one.request.prompt_id, one.request.sample) for one in completions)


# What is asked for and what comes back


def test_completions(sampler, server, trainer):
    """The second completion of [4, 6]: tokens 11, 12 and the stop 77. With w = 0.5 the log-prob of 11 after 6 is
    -1 - 0.5 - ((18 + 11) mod 5) / 10 = -1.9, of 12 after 11 -1.5 (45 mod 5 = 0), of 77 after 12 -1.8 (113 mod 5 = 3)."""
    trainer.w = 0.5
    kept: Sampler = sampler
    kept.update(3)
    found = list(kept.sample(requests([4, 6], [1, 2, 3]), STOPS))
    assert keys(found) == [("0:0", 0), ("0:0", 1), ("0:1", 0), ("0:1", 1)]
    [one] = [c for c in found if c.request.prompt_id == "0:0" and c.request.sample == 1]
    assert one.token_ids.tolist() == [11, 12, 77]
    assert one.token_ids.dtype == np.int32
    assert one.logp == pytest.approx([-1.9, -1.5, -1.8])
    assert one.sampled_logp == pytest.approx([-1.9, -1.5, -1.8])
    assert (one.finish_reason, one.policy_version, sampler.exact) == ("stop", 3, False)


def test_a_completion_that_is_too_long_ends_by_its_length(sampler):
    sampler.update(0)
    [one] = sampler.sample(requests([4, 6], samples=1, max_tokens=1), STOPS)
    assert (one.token_ids.tolist(), one.finish_reason) == ([60], "length")


def test_every_option_is_said(sampler, server):
    """And no seed. Samples of one context are one request; greedy ones are not, which vLLM refuses."""
    sampler.update(0)
    options = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "repetition_penalty": 1.2, "stop_token_ids": (77,), "stop": ("end",)}
    list(sampler.sample(requests([4, 6], [4, 6], samples=3), Sampling(**options)))
    [body] = [one for one in server.bodies if one.get("stream")]
    wanted = options | {"stop_token_ids": [77], "stop": ["end"], "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    wanted |= {"n": 6, "prompt": [4, 6], "max_tokens": 9, "ignore_eos": True, "logprobs": 0, "min_tokens": 0, "model": "fake"}
    assert body == body | wanted
    assert "seed" not in body
    server.bodies.clear()
    list(sampler.sample(requests([4, 6], samples=2), Sampling(temperature=0, stop_token_ids=(77,))))
    assert [one["n"] for one in server.bodies if one.get("stream")] == [1, 1]


def test_of_a_changed_distribution_the_policys_log_probs_are_not_known(sampler):
    sampler.update(0)
    for one in sampler.sample(requests([4, 6]), Sampling(top_k=5, stop_token_ids=(77,))):
        assert np.isnan(one.logp).all()
        assert one.sampled_logp == pytest.approx(logps(0.0, one.request.token_ids, one.token_ids))


def test_min_p_before_top_p_is_another_distribution(sampler):
    sampler.update(0)
    with pytest.raises(SamplingError, match="min_p before top_p"):
        sampler.sample(requests([4, 6]), Sampling(top_p=0.9, min_p=0.1))


def test_each_comes_as_soon_as_it_has_ended(sampler, server):
    server.gate = threading.Event()
    sampler.update(0)
    found = sampler.sample(requests([4, 6]), STOPS)
    assert next(found).request.sample == 0
    server.gate.set()
    assert [one.request.sample for one in found] == [1]


def test_turns_that_follow(sampler, server):
    """The second turn of the first completion is asked for while the second completion is under way."""
    server.gate = threading.Event()
    sampler.update(0)

    def then(one):
        if one.request.first or one.request.sample:
            return None
        ids = np.concatenate([one.request.token_ids, one.token_ids])
        return Request(prompt_id=one.request.prompt_id, sample=0, token_ids=ids, max_tokens=5, first=len(one.token_ids))

    found = sampler.sample(requests([4, 6]), STOPS, then)
    turns = [next(found), next(found)]
    assert [one.request.first for one in turns] == [0, 2]
    assert turns[1].request.token_ids.tolist() == [4, 6, 10, 77]
    server.gate.set()
    assert [one.request.sample for one in found] == [1]


def test_as_many_at_a_time_as_are_allowed(server, trainer, tmp_path):
    sampler = make(server.url, trainer, tmp_path, concurrency=2)
    sampler.update(0)
    most, now, lock = 0, 0, threading.Lock()

    def count(step: int) -> None:
        nonlocal most, now
        with lock:
            now += step
            most = max(most, now)

    plain = server.events

    def events(body):
        count(1)
        yield from plain(body)
        time.sleep(0.02)
        count(-1)

    server.events = events
    assert len(list(sampler.sample(requests(*([i, 6] for i in range(8))), STOPS))) == 16
    assert most == 2


# The server has the policy's weights


def test_update_publishes_and_scores_once(sampler, server, trainer, tmp_path):
    for version in (0, 1, 1):
        trainer.w += 0.01
        sampler.update(version)
    assert trainer.calls == ["publish", "rescore"] * 2
    assert [one.name for one in tmp_path.iterdir()] == ["version-1"]
    assert server.w == pytest.approx(0.02)


def test_weights_that_are_not_the_policys_are_refused(sampler, server):
    """The server scores every token of the probe with w = 0.2 where the trainer has 0: 0.2 apart on average."""
    server.offset = 0.2
    words = r"given version 4, and does not sample from it: .* 8 tokens .* by 0\.2 on average, where 0\.05 is allowed"
    with pytest.raises(SamplingError, match=words):
        sampler.update(4)


def test_weights_that_were_not_loaded_are_refused(sampler, server, trainer):
    """A step moves the trainer by 0.0008 nats, less than the first gap of 0.001 allows for (0.0101), and the server by 0."""
    server.offset = 0.001
    sampler.update(4)
    trainer.w, server.stale = 0.0008, True
    words = r"version 5 in place of version 4, and still has the old weights: .* moved by 0\.0008 on average, and its own by 0, "
    with pytest.raises(SamplingError, match=words):
        sampler.update(5)


def test_the_first_gap_says_what_later_ones_may_be(sampler, server, trainer):
    """At first 0.001 apart, so at most 10 × 0.001 + 0.0001 = 0.0101 later."""
    server.offset = 0.001
    sampler.update(0)
    server.offset, trainer.w = 0.01, 0.3
    sampler.update(1)
    server.offset, trainer.w = 0.011, 0.4
    with pytest.raises(SamplingError, match=r"differ from the trainer's by 0\.011 on average, where 0\.01 is allowed"):
        sampler.update(2)


def test_weights_that_stay_may_stay(sampler, trainer):
    for version in range(3):
        sampler.update(version)
    assert trainer.calls == ["publish", "rescore"] * 3


def test_log_probs_of_another_distribution_are_refused(sampler, server):
    server.raw = True
    with pytest.raises(SamplingError, match=r"certain has a log-prob of -0\.7, .* --logprobs-mode processed_logprobs"):
        sampler.update(0)


def test_a_prefix_cache_that_is_in_use_is_reset_later(sampler, server):
    answers = iter([(200, {"success": False}), None])
    server.before["/reset_prefix_cache"] = lambda: next(answers)
    sampler.update(0)
    assert server.paths.count("/reset_prefix_cache") == 2
    assert len(list(sampler.sample(requests([4, 6]), STOPS))) == 2


def test_nothing_is_sampled_before_the_first_update(sampler):
    with pytest.raises(SamplingError, match="call update before sample"):
        next(sampler.sample(requests([4, 6]), STOPS))


def test_weights_do_not_change_under_completions(sampler):
    sampler.update(0)
    found = sampler.sample(requests([4, 6]), STOPS)
    next(found)
    with pytest.raises(SamplingError, match="Version 1 cannot be loaded while"):
        sampler.update(1)
    with pytest.raises(SamplingError, match="earlier call"):
        next(sampler.sample(requests([4, 6]), STOPS))
    found.close()
    sampler.update(1)


# Faults


def test_a_server_that_was_started_anew_is_given_its_weights_again(sampler, server, trainer):
    trainer.w = 0.5
    sampler.update(2)
    server.restart()
    with pytest.warns(UserWarning, match="no longer had version 2"):
        found = list(sampler.sample(requests([4, 6]), STOPS))
    assert trainer.calls == ["publish", "rescore"]
    for one in found:
        assert one.logp == pytest.approx(logps(0.5, one.request.token_ids, one.token_ids))


def test_a_restart_with_weights_that_score_alike_is_seen(sampler, server):
    sampler.update(2)
    server.label = "default"
    with pytest.warns(UserWarning, match="no longer had version 2"):
        list(sampler.sample(requests([4, 6]), STOPS))


def test_weights_that_someone_else_loaded_are_seen(sampler, server):
    sampler.update(2)
    server.w = 0.3
    with pytest.warns(UserWarning, match="no longer had version 2"):
        list(sampler.sample(requests([4, 6]), STOPS))
    assert server.w == 0


@pytest.mark.parametrize("restarts", [False, True])
def test_an_answer_that_ends_in_the_middle(sampler, server, trainer, restarts):
    """After its first completion and a part of the second: what is missing is asked for again, of the same weights."""
    trainer.w = 0.5
    sampler.update(2)
    server.deaths, server.restarts = [2], restarts
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = list(sampler.sample(requests([4, 6], samples=3), STOPS))
    assert len(said) == restarts
    assert keys(found) == [("0:0", 0), ("0:0", 1), ("0:0", 2)]
    assert [one["n"] for one in server.bodies if one.get("stream")] == [3, 2]
    for one in found:
        assert one.logp == pytest.approx(logps(0.5, one.request.token_ids, one.token_ids))


def test_nothing_is_sent_to_a_server_that_may_be_another(server, trainer, tmp_path):
    """One of two answers breaks off: the third context waits until the other has ended and the server was checked."""
    sampler = make(server.url, trainer, tmp_path, concurrency=2)
    sampler.update(0)
    server.gate, server.deaths = threading.Event(), [0]
    server.on_death = threading.Timer(0.2, server.gate.set).start
    server.paths.clear()
    found = list(sampler.sample(requests([4, 6], [5, 6], [6, 6]), STOPS))
    assert keys(found) == [(f"0:{p}", k) for p in range(3) for k in range(2)]
    check = ["/v1/models", "/weight_info", "/v1/completions"]
    assert server.paths == [*check, *["/v1/completions"] * 2, *check, *["/v1/completions"] * 2]


def test_a_server_that_comes_back_in_time(server, trainer, tmp_path):
    sampler = make(server.url, trainer, tmp_path)
    answers = iter([(503, {"error": {"message": "loading"}})] * 3)
    server.before["/v1/models"] = lambda: next(answers, None)
    sampler.update(0)
    assert server.paths.count("/v1/models") == 4


def test_a_server_that_is_not_there(trainer, tmp_path):
    with FakeVLLM() as gone:
        url = gone.url
    began = time.monotonic()
    with pytest.raises(SamplingError, match=r"asked to load version 0 for 0\.3 s, in vain \(/v1/models: .*refused"):
        make(url, trainer, tmp_path, timeout=0.3).update(0)
    assert time.monotonic() - began < 3


def test_a_server_that_says_nothing(server, trainer, tmp_path):
    sampler = make(server.url, trainer, tmp_path, timeout=0.3)
    server.before["/collective_rpc"] = silence(0.8)
    with pytest.raises(SamplingError, match=r"for 0\.3 s, in vain \(/collective_rpc: no answer within 0\.\d+ s\)"):
        sampler.update(0)


def test_an_answer_that_does_not_go_on(server, trainer, tmp_path):
    sampler = make(server.url, trainer, tmp_path, timeout=0.5)
    sampler.update(0)
    server.gate = threading.Event()
    with pytest.raises(SamplingError, match=r"said nothing for 0\.5 s, and owes 1 completions"):
        list(sampler.sample(requests([4, 6]), STOPS))
    assert not server.waited_out, "what was under way was read to its end"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vllm")]


def test_a_server_that_dies_of_every_request(sampler, server):
    sampler.update(0)
    server.deaths = [0, 0, 0, -1]
    with pytest.raises(SamplingError, match=r"lost 3 times without a completion \(/v1/completions: the answer ended in the middle\)"):
        list(sampler.sample(requests([4, 6]), STOPS))


def test_a_failure_is_not_repeated_until_the_timeout(sampler, server):
    server.before["/collective_rpc"] = lambda: (500, {"error": {"message": "shapes differ"}})
    with pytest.raises(SamplingError, match=r"version 0 3 times, in vain \(/collective_rpc: HTTP 500, shapes differ\)"):
        sampler.update(0)


def test_a_request_that_is_refused(sampler, server):
    sampler.update(0)
    server.before["stream"] = lambda: (400, {"error": {"message": "max_tokens=9 cannot be greater"}})
    with pytest.raises(SamplingError, match=r"refused a request \(/v1/completions: HTTP 400, max_tokens=9 cannot be greater\)"):
        list(sampler.sample(requests([4, 6]), STOPS))


def test_a_server_without_what_is_needed(sampler, server):
    server.before["/collective_rpc"] = lambda: (404, {"detail": "Not Found"})
    with pytest.raises(SamplingError, match=r"refused \(/collective_rpc: HTTP 404, .*Not Found.*start it with VLLM_SERVER_DEV_MODE=1"):
        sampler.update(0)


def test_another_model(sampler, server):
    sampler.update(0)
    server.restart()
    server.model = "other"
    with pytest.raises(SamplingError, match="serves other, and not fake"):
        list(sampler.sample(requests([4, 6]), STOPS))


def test_another_server(sampler, server):
    server.before["/v1/models"] = lambda: (200, {"models": []})
    with pytest.raises(SamplingError, match="does not answer as vLLM does"):
        sampler.update(0)


def spoiled(**changes):
    return lambda choice: choice | (changes if choice["finish_reason"] else {})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoiled(token_ids=[1, 2, 3]), "3 token ids came with 2 log-probs"),
        (lambda choice: {k: v for k, v in choice.items() if k != "token_ids"}, "None token ids came with 2 log-probs"),
        (spoiled(finish_reason="length"), "at most 9 tokens ended by its length after 2"),
        (spoiled(stop_reason=None), "ended with None, which was not among the stops"),
        (spoiled(stop_reason=5), "ended with 5, which was not among the stops"),
        (spoiled(logprobs={"token_logprobs": [-1.0, 0.5]}), "not a finite number of at most 0"),
        (spoiled(logprobs={"token_logprobs": [-1.0, float("nan")]}), "not a finite number of at most 0"),
        (spoiled(token_ids=[], logprobs={"token_logprobs": []}), "ended by its length after 0"),
        (spoiled(token_ids=list(range(10)), logprobs={"token_logprobs": [-1.0] * 10}), "ended by its length after 10"),
    ],
)
def test_completions_that_are_not_what_was_asked_for(sampler, server, spoil, words):
    sampler.update(0)
    server.spoil = spoil
    with pytest.raises(SamplingError, match=words):
        list(sampler.sample(requests([4, 6], samples=1), STOPS))


def test_an_error_within_an_answer(sampler, server):
    """Of the server (code 500): asked for again. Of the request (400): refused."""
    sampler.update(0)
    errors = [{"error": {"message": "out of memory", "code": 500}}]
    plain = server.events
    server.events = lambda body: iter([errors.pop()]) if errors else plain(body)
    assert len(list(sampler.sample(requests([4, 6]), STOPS))) == 2
    assert not errors
    errors.append({"error": {"message": "Token id 99 is out of vocabulary", "code": 400}})
    with pytest.raises(SamplingError, match=r"refused a request \(Token id 99 is out of vocabulary\)"):
        list(sampler.sample(requests([4, 6]), STOPS))


def test_a_probe_that_is_too_short(trainer, tmp_path):
    with pytest.raises(ValueError, match="The probe has 3 tokens"):
        VLLMSampler("http://127.0.0.1:1", publish=trainer.publish, rescore=trainer.rescore, probe=[1, 2, 3], weights_dir=tmp_path)


# A head of its own


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_a_head_that_is_the_embeddings_is_written_beside_them(tmp_path, shard):
    model = tiny_llama()
    model.save_pretrained(tmp_path, max_shard_size=shard)
    add_head(tmp_path)
    with safe_open(tmp_path / "lm_head.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("lm_head.weight"), model.model.embed_tokens.weight)
    if (index := tmp_path / "model.safetensors.index.json").is_file():
        assert json.loads(index.read_text())["weight_map"]["lm_head.weight"] == "lm_head.safetensors"
    assert index.is_file() == (shard == "20KB")


def test_a_head_of_its_own_stays(tmp_path):
    tiny_llama(tie_word_embeddings=False).save_pretrained(tmp_path)
    add_head(tmp_path)
    assert [one.name for one in tmp_path.glob("*.safetensors")] == ["model.safetensors"]


# A real server


@pytest.mark.skipif("BURNISH_VLLM_URL" not in os.environ, reason="BURNISH_VLLM_URL names no vLLM server")
def test_a_real_server(tmp_path):
    """Started from the folder that BURNISH_VLLM_MODEL names, which tools/untied_head.py made of a model with tied embeddings."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = os.environ["BURNISH_VLLM_MODEL"]
    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()

    @torch.no_grad()
    def rescore(rows, temperature=1.0):
        found = []
        for context, completion in rows:
            logits = model(torch.tensor(np.concatenate([context, completion]))[None].long()).logits[0, len(context) - 1 : -1] / temperature
            found.append(logits.log_softmax(-1).gather(1, torch.tensor(completion).long()[:, None])[:, 0].numpy())
        return found

    sampler = VLLMSampler(
        os.environ["BURNISH_VLLM_URL"],
        publish=lambda folder: model.save_pretrained(folder),
        rescore=rescore,
        probe=tokenizer(PROBE)["input_ids"],
        weights_dir=tmp_path,
        untied_head=True,
    )
    sampler.update(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1.001
    sampler.update(1)
    ids = np.array(tokenizer("The capital of France is")["input_ids"])
    asked = [Request(prompt_id="0:0", sample=k, token_ids=ids, max_tokens=12) for k in range(4)]
    for temperature in (1.0, 0.7):
        found = list(sampler.sample(asked, Sampling(temperature=temperature)))
        assert len(found) == 4
        for one in found:
            assert one.policy_version == 1
            assert one.logp == pytest.approx(rescore([(one.request.token_ids, one.token_ids)], temperature)[0], abs=2e-4)
