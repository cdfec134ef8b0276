import random
import re

import pytest
import torch

from burnish.cli import demo
from burnish.demo import FORMS, draw_fact, load_path, make_pairs, make_rows, score, split_of


def facts(rows: list[dict]) -> set[frozenset[int]]:
    """The unordered addends of each row: 47+38 and 85-38 are both {47, 38}."""
    found = set()
    for row in rows:
        x, sign, y = re.match(r"(\d+)([+-])(\d+)=", row["messages"][1]["content"]).groups()
        found.add(frozenset((int(x) if sign == "+" else int(x) - int(y), int(y))))
    return found


def test_rows_are_a_function_of_their_arguments():
    first = make_rows(2, seed=0, split="test")
    assert first == make_rows(3, seed=0, split="test")[:2]
    assert first[0] == {
        "messages": [{"role": "user", "content": "Subtract 13 from 103."}, {"role": "assistant", "content": "103-13=93-3=90"}],
        "answer": "90",
    }
    assert make_rows(50, seed=0, split="train") != make_rows(50, seed=1, split="train")


def test_every_worked_answer_is_right():
    for row in make_rows(2000, seed=3, split="train", forms="all"):
        first, second, result = row["messages"][1]["content"].split("=")
        x, y = (int(number) for number in re.split(r"[+-]", first))
        tens, units = (int(number) for number in re.split(r"[+-]", second))
        sign = 1 if "+" in first else -1
        assert x + sign * y == tens + sign * units == int(result) == int(row["answer"])
        assert units == y % 10
        assert 10 <= y <= 99
        assert score(row["messages"][1]["content"], row)


def test_no_fact_is_in_both_splits():
    train, test = (facts(make_rows(5000, seed=1, split=split, forms="all")) for split in ("train", "test"))
    assert not train & test
    assert {split_of(a, b) for a, b in ((47, 38), (38, 47))} == {"train"}
    every = [split_of(a, b) for a in range(10, 100) for b in range(a, 100)]
    assert (len(every), every.count("test")) == (4095, 815)


def test_drawn_facts_are_in_the_split():
    rng = random.Random(0)
    assert all(split_of(*draw_fact(rng, "test")) == "test" for _ in range(200))


def test_forms_are_either_shown_or_new():
    for sign in ("+", "-"):
        assert not set(FORMS["shown"][sign]) & set(FORMS["new"][sign])
        assert FORMS["all"][sign] == FORMS["shown"][sign] + FORMS["new"][sign]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="^make_rows has no 'shown' forms of split 'dev'; forms are shown, new, all, splits train, test.$"):
        make_rows(1, seed=0, split="dev")


def test_a_pair_is_a_right_answer_and_a_wrong_one():
    rows, pairs = make_rows(2000, seed=3, split="test"), make_pairs(2000, seed=3, split="test")
    assert pairs[:50] == make_pairs(50, seed=3, split="test")
    for row, pair in zip(rows, pairs, strict=True):
        assert pair["prompt"] + pair["chosen"] == row["messages"]
        assert score(pair["chosen"][0]["content"], row)
        wrong = pair["rejected"][0]["content"]
        assert not score(wrong, row)
        assert re.fullmatch(r"\d+[+-]\d+=\d+[+-]\d=\d+", wrong)
    other_sign = [pair for pair in pairs if ("+" in pair["chosen"][0]["content"]) != ("+" in pair["rejected"][0]["content"])]
    assert 0.45 < len(other_sign) / len(pairs) < 0.55


def test_the_stages_that_follow_the_first_leave_models(tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    share = demo.learn_to_judge(load_path(), tmp_path / "judge", steps=2, held_out=8)
    assert f"Of 8 held-out pairs the reward model prefers the right answer in {share:.1%} (standard error" in capsys.readouterr().out
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "judge").config.num_labels == 1

    scored = demo.own_answers(load_path(), make_rows(3, seed=0, split="train", forms="new"), n=2)
    assert scored == demo.own_answers(load_path(), make_rows(3, seed=0, split="train", forms="new"), n=2)
    assert [len(row["completions"]) for row in scored] == [len(row["scores"]) for row in scored] == [2, 2, 2]
    for row, pair in zip(scored, make_pairs(3, seed=0, split="train"), strict=True):
        row |= {"completions": [pair["rejected"], pair["chosen"]], "scores": [0.0, 1.0]}
    demo.prefer(load_path(), tmp_path / "dpo", scored, steps=2)
    AutoModelForCausalLM.from_pretrained(tmp_path / "dpo")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("47+38=77+8=85", True),
        ("85", True),
        ("It is 85.", True),
        ("85 is 47 and 38", False),
        ("47+38=77+8=86", False),
        ("47+38=77+8=", False),
        ("085", False),
        ("-85", False),
        ("100-85", True),
        ("185", False),
        ("", False),
        ("many", False),
    ],
)
def test_the_last_integer_is_scored(text: str, right: bool):
    assert score(text, {"answer": "85"}) is right


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(load_path())


def test_any_text_comes_back(tokenizer):
    for text in ("".join(map(chr, range(128))), "  two  spaces\n\ttab", "naïve 日本語 👩‍👩‍👧 🇫🇷", "What is 47 plus 38?", " don't"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.unk_token is None


def test_every_digit_is_a_token(tokenizer):
    assert tokenizer.tokenize("47+38=85 x100") == ["4", "7", "+", "3", "8", "=", "8", "5", "Ġ", "x", "1", "0", "0"]
    assert not [token for token in tokenizer.get_vocab() if len(token) > 1 and re.search(r"\d", token)]


def test_a_conversation_is_chatml(tokenizer):
    row = make_rows(1, seed=0, split="test")[0]
    rendered = tokenizer.apply_chat_template(row["messages"], tokenize=False)
    assert rendered == "<|im_start|>user\nSubtract 13 from 103.<|im_end|>\n<|im_start|>assistant\n103-13=93-3=90<|im_end|>\n"
    assert tokenizer.eos_token == "<|im_end|>"
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


@torch.no_grad()
def test_the_model_works_out_equations_it_has_not_read(tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(load_path(), dtype=torch.float32)
    assert model.num_parameters() == 1_334_656
    rows = make_rows(60, seed=0, split="test")
    right = 0
    for row in rows:
        steps = row["messages"][1]["content"]
        left = tokenizer("<|endoftext|>" + steps[: steps.index("=") + 1], return_tensors="pt")["input_ids"]
        ids = tokenizer("<|endoftext|>" + steps, return_tensors="pt")["input_ids"]
        greedy = model(ids).logits[0, left.shape[1] - 1 : -1].argmax(-1)
        right += bool((greedy == ids[0, left.shape[1] :]).all())
    assert right >= 0.95 * len(rows)


@pytest.mark.parametrize("rloo", [False, True], ids=["grpo", "rloo"])
def test_reinforcement(tmp_path, rloo):
    trainer = demo.reinforcement(load_path(), tmp_path, steps=1, rloo=rloo)
    trainer.train()
    assert trainer.state.global_step == 1
    (line,) = [one for one in trainer.state.log_history if "reward" in one]
    assert line["completions/max_length"] <= 24
    assert 0 <= line["reward"] <= 1
