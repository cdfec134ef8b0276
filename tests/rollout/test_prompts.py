"""Prompts become the ids that training would see as their rows' prompts."""

import pytest

from burnish.data.formats import SFT_FORMATS, check_rows
from burnish.data.prepare_report import Tally
from burnish.data.readers import PrepareOptions, reader_for
from burnish.data.rows import DataError, ListRows
from burnish.rollout.prompts import PromptRenderer
from tests.data.small_templates import GEMMA, LLAMA3, MISTRAL, PREFILLED, QWEN3
from tests.data.small_tokenizer import CHATML, make_tokenizer

USER = {"role": "user", "content": "what is the sum"}
FOX = {"role": "assistant", "content": "the fox"}
WHAT = {"role": "user", "content": "and two?"}
SPECIAL = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]


def trained_with(tokenizer, row):
    """The ids of the row's prompt, as supervised fine-tuning on prompt and completion has them."""
    rows = ListRows([row])
    options = PrepareOptions(format=check_rows(rows, accepted=SFT_FORMATS))
    ((prompt, _),) = reader_for(options.format, tokenizer, options).read([row], 0, Tally())
    return [int(token) for ids, _, _ in prompt for token in ids]


@pytest.mark.parametrize("options", [{}, {"bos": True}, {"metaspace": True}, {"bos": True, "metaspace": True}])
def test_texts_are_encoded_as_they_are_trained(options):
    tokenizer = make_tokenizer(**options)
    rows = [{"prompt": "what is one and", "answer": 1}, {"prompt": "question: two"}]
    found = PromptRenderer(tokenizer)(rows)
    assert [ids.tolist() for ids in found] == [trained_with(tokenizer, {"prompt": row["prompt"], "completion": " three"}) for row in rows]
    assert {str(ids.dtype) for ids in found} == {"int32"}
    assert (found[0][0] == tokenizer.bos_token_id) == ("bos" in options)


@pytest.mark.parametrize("template", [CHATML, LLAMA3, QWEN3, MISTRAL, GEMMA, PREFILLED])
@pytest.mark.parametrize("turns", [[USER], [USER, FOX, WHAT]])
def test_conversations_end_in_the_generation_prompt(template, turns):
    tokenizer = make_tokenizer(chat_template=template)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    wanted = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    rows = [{"prompt": turns}, {"messages": turns}, {"messages": [*turns, FOX]}, {"prompt": "the dog"}]
    found = PromptRenderer(tokenizer)(rows)
    assert [ids.tolist() for ids in found[:3]] == [wanted] * 3
    if template == CHATML:
        assert found[0].tolist() == trained_with(tokenizer, {"prompt": turns, "completion": [FOX]})


def test_other_spellings_and_arguments():
    tokenizer = make_tokenizer(chat_template=QWEN3)
    said = {"conversations": [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": "three"}]}
    in_parts = {"prompt": [{"role": "user", "content": [{"type": "text", "text": "what is "}, {"type": "text", "text": "the sum"}]}]}
    quiet = {"prompt": [USER], "chat_template_kwargs": {"enable_thinking": False}}
    found = [tokenizer.decode(ids) for ids in PromptRenderer(tokenizer)([said, in_parts, quiet])]
    plain = "<|im_start|>user\nwhat is the sum<|im_end|>\n<|im_start|>assistant\n"
    assert found == [plain, plain, f"{plain}<think>\n\n</think>\n\n"]


def test_tools_are_written():
    template = "{% if tools %}{{ tools[0].name }}: {% endif %}" + CHATML
    tokenizer = make_tokenizer(chat_template=template)
    (ids,) = PromptRenderer(tokenizer)([{"prompt": [USER], "tools": [{"name": "fox"}]}])
    assert tokenizer.decode(ids) == "fox: <|im_start|>user\nwhat is the sum<|im_end|>\n<|im_start|>assistant\n"


def test_a_prompt_that_ends_in_the_assistants_words_is_continued():
    tokenizer = make_tokenizer()
    (ids,) = PromptRenderer(tokenizer)([{"prompt": [USER, FOX]}])
    assert tokenizer.decode(ids) == "<|im_start|>user\nwhat is the sum<|im_end|>\n<|im_start|>assistant\nthe fox"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"question": "two"}, "rows[1] has the columns ['question'], but a row to sample from needs 'prompt'"),
        ({"prompt": None}, "rows[1] has the columns ['prompt']"),
        ({"prompt": 3}, "rows[1]: 'prompt' is of type int"),
        ({"prompt": ""}, "rows[1] has a prompt without a token"),
        ({"prompt": []}, "rows[1]: 'prompt' is an empty conversation"),
        ({"prompt": [{"content": "x"}]}, "rows[1]: 'prompt' message 0 has no role"),
        ({"messages": [FOX]}, "rows[1]: 'messages' holds an answer alone"),
        ({"prompt": [USER], "chat_template_kwargs": {"colour": 1}}, "rows[1]: The chat template does not read 'colour'"),
    ],
)
def test_a_row_without_a_prompt_is_named(row, sentence):
    with pytest.raises(DataError) as error:
        PromptRenderer(make_tokenizer())([{"prompt": "the dog"}, row])
    assert str(error.value).startswith(sentence)


def test_rows_of_a_file_are_named_as_a_person_finds_them():
    rows = ListRows([{"prompt": "the dog"}, {"text": "x"}], "train")
    with pytest.raises(DataError) as error:
        PromptRenderer(make_tokenizer())(rows)
    assert str(error.value).startswith(f"{rows.where(1)} has the columns")


def test_no_chat_template():
    tokenizer = make_tokenizer(chat_template=None)
    assert len(PromptRenderer(tokenizer)([{"prompt": "the dog"}])) == 1
    with pytest.raises(DataError, match=r"rows\[0\]: The tokenizer .* has no chat template"):
        PromptRenderer(tokenizer)([{"prompt": [USER]}])
