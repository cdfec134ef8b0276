"""The built-in sampler: its log-probs are the trainer's, and a completion is the same whatever is sampled beside it."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from burnish.models.policy import Paths, Policy
from burnish.models.probe import probe
from burnish.rollout import local
from burnish.rollout.sampler import Request, Sampling, SamplingError
from tests.models.families import FAMILIES, VOCABULARY, tiny_model
from tests.ops.test_sampling import theirs
from tests.rollout.sampled import by_name, logits_of, policy_of, requests, sampler_of, text, tokens, trainers_logps

SAMPLINGS = {
    "plain": Sampling(stop_token_ids=(5, 6, 7)),
    "cool": Sampling(temperature=0.6),
    "greedy": Sampling(temperature=0),
    "all": Sampling(temperature=1.4, top_k=20, top_p=0.9, min_p=0.02, repetition_penalty=1.2, seed=3),
}
FURTHER = {
    "top-k": Sampling(top_k=5),
    "top-p": Sampling(top_p=0.5),
    "min-p": Sampling(min_p=0.1, temperature=0.7),
    "penalty": Sampling(repetition_penalty=1.5),
    "greedy, penalty": Sampling(temperature=0, repetition_penalty=1.5),
}


def two_voices(policy, sampling, asked=None):
    """The sampler's log-probs are the trainer's; those under what was drawn from are a dense computation's."""
    found = list(sampler_of(policy).sample(asked or requests(), sampling))
    for one, wanted in zip(found, trainers_logps(policy, found, sampling.temperature or 1.0), strict=True):
        np.testing.assert_allclose(one.logp, wanted.numpy(), atol=1e-4, rtol=0)
        assert (one.sampled_logp is None) == (not sampling.changed)
        if sampling.changed:
            np.testing.assert_allclose(one.sampled_logp, dense(policy, one, sampling), atol=1e-4, rtol=0)
    return found


def dense(policy, completion, sampling):
    """Log-prob of each token by transformers' processors, each row's context being what stood before."""
    if sampling.temperature == 0:
        return np.zeros(len(completion.token_ids), dtype=np.float32)
    found, before = [], list(completion.request.token_ids)
    for logits, token in zip(logits_of(policy, completion), completion.token_ids.tolist(), strict=True):
        found.append(float(theirs(logits[None], torch.tensor([before]), sampling)[0, token]))
        before.append(token)
    return np.array(found)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_two_voices(family, sampling):
    policy = policy_of(family)
    assert (policy.paths.attention == "tree") == (FAMILIES[family][2] == "tree")
    assert len(two_voices(policy, sampling)) == 12


@pytest.mark.parametrize("sampling", FURTHER.values(), ids=FURTHER.keys())
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_two_voices_over_the_grid(family, sampling):
    two_voices(policy_of(family), sampling)


@pytest.mark.parametrize("paths", [Paths(attention="branches"), Paths(attention="branches", head="model")], ids=str)
def test_the_plain_ways(paths):
    """Through the model's own cache and, where the head is not a projection, its own logits: the same tokens."""
    policy = policy_of("gemma2")
    wanted = tokens(sampler_of(policy).sample(requests(), Sampling(temperature=0.8)))
    plain = policy_of("gemma2", wanted="branches")
    plain.paths = paths
    assert tokens(two_voices(plain, Sampling(temperature=0.8))) == wanted
    assert sampler_of(policy).messages == ()
    assert "one prompt at a time" in sampler_of(plain).messages[0]


def test_long_completions():
    """Rows of up to 150 tokens pass through four sizes of slots."""
    asked = requests(lengths=(30, 3), samples=4, max_tokens=150)
    found = two_voices(policy_of(), Sampling(stop_token_ids=(5,)), asked)
    assert max(len(one.token_ids) for one in found) > 64


def test_seeds():
    policy = policy_of()
    first, again, other = (tokens(sampler_of(policy).sample(requests(), Sampling(seed=seed))) for seed in (1, 1, 2))
    assert first == again
    assert all(first[name] != other[name] for name in first)
    assert len({tuple(ids) for ids in first.values()}) == len(first)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_neighbours_do_not_matter(family, monkeypatch):
    """Alone, in another order, few at a time, contexts computed a few tokens at a time: the same tokens."""
    policy, sampling, asked = policy_of(family), Sampling(stop_token_ids=(5, 6)), requests(samples=4, max_tokens=20)
    together = tokens(sampler_of(policy).sample(asked, sampling))
    assert tokens(sampler_of(policy).sample(asked[::-1], sampling)) == together
    for one in asked[::5]:
        (found,) = sampler_of(policy).sample([one], sampling)
        assert found.token_ids.tolist() == together[one.prompt_id, one.sample, 0]
    monkeypatch.setattr(local, "MOST_ROWS", {"cpu": 3})
    assert tokens(sampler_of(policy).sample(asked, sampling)) == together
    monkeypatch.setattr(local, "PREFILL", {"cpu": 5})
    assert tokens(sampler_of(policy).sample(asked, sampling)) == together


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=9, repetition_penalty=1.3)], ids=["plain", "changed"])
def test_little_memory(monkeypatch, sampling):
    """Rows that are interrupted go on from where they were: the same tokens and log-probs. Room is kept to all the while."""
    policy, asked = policy_of(), requests(samples=4, max_tokens=80)
    wanted = by_name(sampler_of(policy).sample(asked, sampling))
    token_bytes = 2 * 2 * 2 * 8 * 4  # two layers, keys and values, two heads of 8 in float32
    interrupted, rooms = [], []
    plain_interrupt, plain_step = local._Run._interrupt, local.Decoder.step

    def interrupt(run):
        before = len(run._waiting)
        plain_interrupt(run)
        interrupted.append(len(run._waiting) - before)

    def step(decoder, token_R):
        rooms.append(decoder.room)
        return plain_step(decoder, token_R)

    monkeypatch.setattr(local, "TYPICAL", 1)  # hopes are high, and have to be given up
    monkeypatch.setattr(local._Run, "_interrupt", interrupt)
    monkeypatch.setattr(local.Decoder, "step", step)
    found = by_name(sampler_of(policy, memory=500 * token_bytes / 2**30).sample(asked, sampling))
    assert sum(interrupted) > 0
    assert max(rooms) <= 500
    assert found.keys() == wanted.keys()
    for name, one in found.items():
        assert one.token_ids.tolist() == wanted[name].token_ids.tolist()
        assert len(one.request.token_ids) in (9, 4, 17, 1)
        np.testing.assert_allclose(one.logp, wanted[name].logp, atol=1e-4, rtol=0)
        if sampling.changed:
            np.testing.assert_allclose(one.sampled_logp, wanted[name].sampled_logp, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gpt-oss", "mamba"])
def test_greedy_is_what_generate_does(family):
    policy = policy_of(family)
    found = by_name(sampler_of(policy).sample(requests(samples=1), Sampling(temperature=0)))
    for one in found.values():
        ids = torch.from_numpy(one.request.token_ids)[None]
        options = {
            "do_sample": False,
            "max_new_tokens": 12,
            "eos_token_id": None,
            "pad_token_id": 0,
            "attention_mask": torch.ones_like(ids),
        }
        assert policy.causal_model.generate(ids, **options)[0, ids.shape[1] :].tolist() == one.token_ids.tolist()


def test_frequencies():
    """4000 first tokens against the model's own probabilities. Tokens expected less than 5 times are one cell. Chi-square with k degrees
    of freedom has mean k and variance 2k; four standard deviations above the mean it is once in some ten thousand seeds."""
    policy, ids = policy_of(), np.array([3, 9, 4])
    asked = [Request(prompt_id="p", sample=i, token_ids=ids, max_tokens=1) for i in range(4000)]
    found = list(sampler_of(policy).sample(asked, Sampling(temperature=0.8)))
    expected = (logits_of(policy, found[0])[0] / 0.8).softmax(-1).double() * 4000
    counts = torch.bincount(torch.tensor([int(one.token_ids[0]) for one in found]), minlength=VOCABULARY).double()
    large = expected >= 5
    cells = [torch.cat([one[large], one[~large].sum()[None]]) for one in (counts, expected)]
    freedom = len(cells[0]) - 1
    assert freedom >= 20
    assert float(((cells[0] - cells[1]) ** 2 / cells[1]).sum()) < freedom + 4 * (2 * freedom) ** 0.5


def test_an_adapter_is_live():
    """What is sampled follows the adapter's weights at once, and is what the merged model gives."""
    torch.manual_seed(1)
    adapted = get_peft_model(
        tiny_model("llama", dtype=torch.float32), LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "lm_head"])
    )
    policy = Policy(adapted).eval()
    probe(policy)
    sampler = sampler_of(policy)
    before = tokens(sampler.sample(requests(), Sampling()))
    assert before == tokens(sampler_of(policy_of()).sample(requests(), Sampling())), "a new adapter changes nothing"
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    after = two_voices(policy, Sampling())
    assert tokens(after) != before
    assert tokens(sampler.sample(requests(), Sampling())) == tokens(after)
    merged = Policy(adapted.merge_and_unload()).eval()
    probe(merged)
    assert tokens(sampler_of(merged).sample(requests(), Sampling())) == tokens(after)


def test_a_context_is_computed_once(monkeypatch):
    """Two prompts of 9 and 4 tokens for six completions of 4: 13 tokens, and then one a row and step, but for the first draw.

    The first time one token goes before, to know how much a token takes; so that rows are computed together the same way every time.
    """
    policy, seen = policy_of(), []
    plain = policy.backbone
    monkeypatch.setattr(policy, "backbone", lambda ids, positions: seen.append(len(ids)) or plain(ids, positions))
    asked = requests(lengths=(9, 4), max_tokens=4)
    sampler = sampler_of(policy)
    list(sampler.sample(asked, Sampling()))
    assert seen == [1, 13, 6, 6, 6]
    seen.clear()
    list(sampler.sample(asked, Sampling()))
    assert seen == [13, 6, 6, 6]


def test_why_it_ended():
    policy = policy_of()
    free = by_name(sampler_of(policy).sample(requests(), Sampling()))
    stops = (10, 11, 12, 13, 14, 15)
    for name, one in by_name(sampler_of(policy).sample(requests(), Sampling(stop_token_ids=stops))).items():
        whole = free[name].token_ids.tolist()
        end = next((i + 1 for i, token in enumerate(whole) if token in stops), None)
        assert one.token_ids.tolist() == whole[:end]
        assert one.finish_reason == ("length" if end is None else "stop")
        assert len(one.logp) == len(one.token_ids)
    assert {one.finish_reason for one in free.values()} == {"length"}


def test_stop_strings():
    """A text that stands across two tokens ends a completion with the second; a prompt that holds it does not."""
    policy = policy_of()
    free = by_name(sampler_of(policy).sample(requests(), Sampling()))
    name, whole = next(iter(free.items()))
    ids = whole.token_ids.tolist()
    across = text(ids[3:5])[1:-1]  # from inside the fourth token to inside the fifth
    assert across not in text(ids[:4])
    found = by_name(sampler_of(policy).sample(requests(), Sampling(stop=(across, "never"))))
    assert found[name].token_ids.tolist() == ids[:5]
    assert found[name].finish_reason == "stop"


def test_follow_ups_join():
    """A second turn goes on from the first's tokens, with the numbers that a longer first turn would have had."""
    policy = policy_of()
    long = by_name(sampler_of(policy).sample(requests(max_tokens=12), Sampling()))

    def then(one):
        if one.request.first:
            return None
        ids = np.concatenate([one.request.token_ids, one.token_ids])
        return Request(prompt_id=one.request.prompt_id, sample=one.request.sample, token_ids=ids, max_tokens=7, first=5)

    found = by_name(sampler_of(policy).sample(requests(max_tokens=5), Sampling(), then))
    assert len(found) == 24
    for (prompt, sample, _), whole in long.items():
        first, second = found[prompt, sample, 0], found[prompt, sample, 5]
        assert [*first.token_ids, *second.token_ids] == whole.token_ids.tolist()
        np.testing.assert_allclose([*first.logp, *second.logp], whole.logp, atol=1e-4, rtol=0)


def test_completions_come_as_they_end(monkeypatch):
    """The shortest first, and the rows that take their places are begun before the longest has ended."""
    monkeypatch.setattr(local, "MOST_ROWS", {"cpu": 4})
    draw = np.random.default_rng(0)
    limits = [2, 30, 3, 4, 5, 6, 7, 8]
    asked = [Request(prompt_id=str(i), sample=0, token_ids=draw.integers(3, 90, 4), max_tokens=n) for i, n in enumerate(limits)]
    found = [one.request.max_tokens for one in sampler_of(policy_of()).sample(asked, Sampling())]
    assert found[0] == 2
    assert found[-1] == 30
    assert sorted(found) == sorted(limits)


def test_between_completions_everything_is_as_it_was():
    policy = policy_of(compute_dtype=torch.bfloat16)
    policy.train()
    frozen = next(policy.parameters()).requires_grad_(False)
    for one in sampler_of(policy).sample(requests(), Sampling(stop_token_ids=(5, 6, 7))):
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert policy.training
        assert not frozen.requires_grad
        assert one.policy_version == 0
    sampler = sampler_of(policy)
    sampler.update(7)
    assert {one.policy_version for one in sampler.sample(requests(samples=1), Sampling())} == {7}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_two_voices_in_bfloat16(family):
    """Rounding to 8 bits shows in both voices, and the same in the layers' products; what remains is what other shapes round otherwise.
    Ratios of the two would be off by as much as in any mixed-precision training."""
    policy = policy_of(family, compute_dtype=torch.bfloat16)
    found = list(sampler_of(policy).sample(requests(), Sampling()))
    gaps = [np.abs(one.logp - wanted.float().numpy()) for one, wanted in zip(found, trainers_logps(policy, found, 1.0), strict=True)]
    assert np.concatenate(gaps).mean() < 0.03


def test_weights_are_cast_once(monkeypatch):
    """Under autocast a weight, frozen or not, becomes bfloat16 once for a burst of steps and not once for each."""
    policy, casts = policy_of(compute_dtype=torch.bfloat16), []
    weight = policy.causal_model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._to_copy.default and args[0].shape == weight.shape and args[0].data_ptr() == weight.data_ptr():
                casts.append(1)
            return function(*args, **(kwargs or {}))

    with Watch():
        list(sampler_of(policy).sample(requests(max_tokens=10), Sampling()))
    assert len(casts) <= 2


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request(prompt_id="a", sample=2, token_ids=np.array([], dtype=np.int64), max_tokens=3), "sample 2 of a has no context"),
        (Request(prompt_id="a", sample=2, token_ids=np.array([4]), max_tokens=0), "sample 2 of a has max_tokens=0"),
    ],
)
def test_requests_that_are_refused(request_, sentence):
    with pytest.raises(SamplingError, match=sentence):
        list(sampler_of(policy_of()).sample([request_], Sampling()))


def test_too_little_memory_for_one_completion():
    with pytest.raises(SamplingError, match="do not hold the keys and values of one completion of 0:0; raise sampler_memory"):
        list(sampler_of(policy_of(), memory=60 * 256 / 2**30).sample(requests(max_tokens=40), Sampling()))


def test_logits_that_are_no_numbers():
    policy = policy_of()
    policy.causal_model.lm_head.weight.data[7] = float("nan")
    with pytest.raises(SamplingError, match="The logits for 0:0 are not finite"):
        list(sampler_of(policy).sample(requests(), Sampling()))


def test_nothing_asked():
    assert list(sampler_of(policy_of()).sample([], Sampling())) == []
