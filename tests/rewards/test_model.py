"""Reward models: scores as transformers gives them, at the token that training reads; and all rewards in one table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from burnish.config.rewards import RewardsConfig
from burnish.rewards.model import RewardModel, _example
from burnish.rewards.names import ModelSource, reward_sources
from burnish.rewards.samples import Failure, RewardError, Sample
from burnish.rewards.scoring import Rewards
from tests.tiny import save_tiny_model, tiny_tokenizer

CPU = torch.device("cpu")
CHAT = [{"role": "user", "content": "w1 w2 w3"}]
ANSWERS = ("w4 w5", "w4 w6 w7 w8", "w9", "w4 w5", "")


def tiny_classifier(**options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        shape = {
            "vocab_size": len(tiny_tokenizer()),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "num_labels": 1,
            "pad_token_id": None,
            "bos_token_id": None,
        }
        model = LlamaForSequenceClassification(LlamaConfig(**{**shape, **options})).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.25)
        return model.eval()


def sample(prompt, answer):
    completion = answer if isinstance(prompt, str) else [{"role": "assistant", "content": answer}]
    return Sample(prompt=prompt, completion=completion, completion_ids=np.array([1]), finish_reason="stop")


def alone(model, ids):
    with torch.no_grad():
        return float(model(torch.tensor([ids]), use_cache=False).logits[0, 0])


def scored(model, samples, **options):
    return RewardModel(ModelSource(name="judge", model=model), device=CPU, tokenizer=tiny_tokenizer(), **options)(samples)


@pytest.mark.parametrize("max_tokens", [16384, 20])
def test_conversations_are_scored_at_the_end_of_turn(max_tokens):
    """What comes after the last <|im_end|>, a new line here, is not read; as one tree, and cut in several."""
    tokenizer, model = tiny_tokenizer(), tiny_classifier()
    expected = []
    for answer in ANSWERS:
        text = tokenizer.apply_chat_template([*CHAT, {"role": "assistant", "content": answer}], tokenize=False)
        assert text.endswith("<|im_end|>\n")
        expected.append(alone(model, tokenizer(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]))
    assert len({round(one, 6) for one in expected}) == 4  # the first and the fourth are the same
    assert scored(model, [sample(CHAT, one) for one in ANSWERS], max_tokens=max_tokens) == pytest.approx(expected, abs=1e-6)


def test_texts_are_scored_at_their_end_of_sequence():
    """Which is appended where it is missing."""
    tokenizer, model = tiny_tokenizer(), tiny_classifier()
    expected = [alone(model, [*tokenizer("w1 w2 " + one)["input_ids"], tokenizer.eos_token_id]) for one in ANSWERS]
    assert scored(model, [sample("w1 w2 ", one) for one in ANSWERS]) == pytest.approx(expected, abs=1e-6)


def test_what_completions_begin_with_is_computed_once():
    """Of rows of 5, 6 and 4 tokens the first two are the same in all, and the last of each stays in its branch: 2 + 3 + 4 + 2 = 11."""
    rows = [np.array(one) for one in ([1, 2, 3, 4, 5], [1, 2, 3, 9, 9, 9], [1, 2, 7, 4])]
    example = _example(rows)
    assert (len(example), [len(branch) for branch in example.branches], example.trained_tokens) == (11, [3, 4, 2], 3)
    assert [len(branch) for branch in _example([rows[0], rows[0][:2]]).branches] == [4, 1]
    answers = ["w4 w5 w6 w7", "w4 w5 w8 w9 w9", "w1 w5 w6 w7"]
    model = tiny_classifier()
    each = [scored(model, [sample("w1 ", one)])[0] for one in answers]
    assert scored(model, [sample("w1 ", one) for one in answers]) == pytest.approx(each, abs=1e-6)


def test_a_lone_completion():
    tokenizer, model = tiny_tokenizer(), tiny_classifier()
    expected = alone(model, [*tokenizer("w1 w2")["input_ids"], tokenizer.eos_token_id])
    assert scored(model, [sample("w1 ", "w2")]) == pytest.approx([expected], abs=1e-6)


def test_what_is_too_long_or_no_number_fails():
    long = " ".join(["w1"] * 60)
    first, second = scored(tiny_classifier(), [sample("w1 ", "w2"), sample("w1 ", long)])
    assert isinstance(first, float)
    assert second == Failure("is longer than the model's 64 tokens")
    judge = RewardModel(ModelSource(name="judge", model=tiny_classifier()), device=CPU, tokenizer=tiny_tokenizer())
    judge.scorer.model.score.weight.data.fill_(float("nan"))
    assert judge([sample("w1 ", "w2")]) == [Failure("returned NaN")]


def test_a_model_by_its_folder(tmp_path):
    model = tiny_classifier().float()
    model.save_pretrained(tmp_path / "judge")
    tiny_tokenizer().save_pretrained(tmp_path / "judge")
    (source,) = reward_sources(str(tmp_path / "judge"))
    judge = RewardModel(source, device=CPU, compute_dtype="float32")
    assert judge.name == "judge"
    expected = scored(tiny_classifier(), [sample(CHAT, one) for one in ANSWERS])
    assert judge([sample(CHAT, one) for one in ANSWERS]) == pytest.approx(expected, abs=1e-5)
    assert not any(parameter.requires_grad for parameter in judge.scorer.parameters())


def test_a_model_without_a_score_head_is_refused(tmp_path):
    save_tiny_model(tmp_path / "model")
    with pytest.raises(
        RewardError, match=r"^The reward model '.*model' has no trained score head, and its scores would be noise; train it"
    ):
        RewardModel(ModelSource(name="model", model=str(tmp_path / "model")), device=CPU)


def test_a_tokenizer_without_a_template_is_refused():
    judge = RewardModel(ModelSource(name="judge", model=tiny_classifier()), device=CPU, tokenizer=tiny_tokenizer(chat_template=None))
    with pytest.raises(RewardError, match=r"^The tokenizer of the reward model 'judge' has no chat template, and the prompts are mess"):
        judge([sample(CHAT, "w1")])


def test_functions_and_models_in_the_users_order():
    """A length of 2 and of 4 words, the model's scores s, and twice the length: 1·l + 0.5·s + 0.25·2l."""

    def length(sample):
        return float(len(sample.text.split()))

    model = tiny_classifier()
    samples = [sample("w1 ", one) for one in ANSWERS[:2]]
    scores = scored(model, samples)
    sources = reward_sources(
        [length, ModelSource(name="judge", model=model), lambda completions: [2 * len(one.split()) for one in completions]]
    )
    rewards = Rewards(sources, RewardsConfig(reward_weights=[1, 0.5, 0.25], reward_workers=1, reward_memory=None))
    try:
        with pytest.raises(RewardError, match=r"^There are 2 reward_processing_classes for 3 rewards; give one for each\.$"):
            rewards.load_models(CPU, [None, tiny_tokenizer()])
        rewards.load_models(CPU, [None, tiny_tokenizer(), None])
        done = rewards.finish(samples, rewards.submit(samples, 1).result(20))
    finally:
        rewards.close()
    assert rewards.names == ["length", "judge", "<lambda>"]
    assert done.rewards == [[2.0, pytest.approx(scores[0]), 4.0], [4.0, pytest.approx(scores[1]), 8.0]]
    assert all(seconds > 0 for seconds in done.seconds)
    worth = [sum(weight * one for weight, one in zip(rewards.weights, row, strict=True)) for row in done.rewards]
    assert worth == pytest.approx([3 + scores[0] / 2, 6 + scores[1] / 2])
