"""Renderings → token segments, with tokenizers of every kind: ids, boundaries, counts."""

import pytest
from transformers import ByT5Tokenizer

from burnish.data.chat import ChatRenderer, Rendering, Span
from tests.chat_tokenizers import byte_level, sentencepiece_like, wordpiece
from tests.data.small_templates import CHATML, GEMMA, HI, LLAMA3, MISTRAL, QWEN3, SPECIAL, YO, assistant, renderer, system, user


def tokens(tokenizer, segments):
    return [(segment.trained, tokenizer.convert_ids_to_tokens(segment.token_ids.tolist())) for segment in segments]


@pytest.mark.parametrize("trim", [False, True])
def test_ids_are_those_of_apply_chat_template(trim):
    tokenizer = byte_level(QWEN3, SPECIAL, eos="<|im_end|>", trim=trim)
    rows = [[HI, YO], [system("Be."), HI, assistant(" 東京 🙂\n", reasoning_content="hm"), HI, assistant("")]]
    chat = ChatRenderer(tokenizer)
    encoded = chat.encode([chat.render(row) for row in rows])
    for row, segments in zip(rows, encoded.rows, strict=True):
        ids = [token for segment in segments for token in segment.token_ids.tolist()]
        assert ids == tokenizer.apply_chat_template(row, return_dict=False)
    assert (encoded.straddled, encoded.duplicate_bos) == (0, 0)


@pytest.mark.parametrize("trim", [False, True])
def test_a_token_across_the_boundary_is_cut_and_the_row_counted(trim):
    tokenizer = byte_level(CHATML, SPECIAL, eos="<|im_end|>", trim=trim)
    chat = ChatRenderer(tokenizer)
    encoded = chat.encode([chat.render([HI, assistant("\nworld")]), chat.render([HI, assistant("world")])])
    assert encoded.straddled == 1
    assert tokenizer.tokenize("assistant\n\nworld") == ["assistant", "ĊĊ", "world"]
    assert tokens(tokenizer, encoded.rows[0])[1:] == [
        (False, ["<|im_start|>", "assistant", "Ċ"]),
        (True, ["Ċ", "world", "<|im_end|>"]),
        (False, ["Ċ"]),
    ]
    spaced = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = byte_level(spaced, SPECIAL, eos="<|im_end|>", trim=trim)
    chat = ChatRenderer(tokenizer)
    encoded = chat.encode([chat.render([HI, assistant("answer")])])
    assert encoded.straddled == 1
    assert tokens(tokenizer, encoded.rows[0])[1:] == [(False, ["assistant", ":", "Ġ"]), (True, ["an", "swer"]), (False, ["Ċ"])]


def test_truncation_left_on_by_another_call_cuts_nothing():
    tokenizer = byte_level(CHATML, SPECIAL, eos="<|im_end|>")
    tokenizer("hello there", truncation=True, max_length=2)
    chat = ChatRenderer(tokenizer)
    assert tokenizer.decode([t for s in chat.encode([chat.render([HI, YO])]).rows[0] for t in s.token_ids]) == chat.render([HI, YO]).text


def test_sentencepiece_like():
    tokenizer = sentencepiece_like(MISTRAL, ["<s>", "</s>"], eos="</s>", bos="<s>")
    chat = ChatRenderer(tokenizer)
    whole = tokenizer.apply_chat_template([HI, YO, HI, YO], return_dict=False)
    encoded = chat.encode([chat.render([HI, YO, HI, YO])])
    assert [t for s in encoded.rows[0] for t in s.token_ids.tolist()] == whole
    prompt, completion = chat.encode(chat.render_pair([HI, YO, HI], [YO])).rows
    assert [t for s in [*prompt, *completion] for t in s.token_ids.tolist()] == whole
    assert tokens(tokenizer, completion) == [(True, ["▁Yo", "</s>"])]
    assert encoded.straddled == 0
    glued = ChatRenderer(sentencepiece_like(MISTRAL.replace("' ' + m", "m"), ["</s>"], eos="</s>", bos="<s>"))
    pieces = glued.encode([glued.render([user("Yo"), assistant("answer")])]).rows[0]
    assert tokens(tokenizer, pieces)[1] == (True, ["an", "sw", "er", "</s>"])  # no space of its own before it
    bare = ChatRenderer(sentencepiece_like("{% for m in messages %}{{ m.content }}{% endfor %}", [], eos="</s>", bos="<s>"))
    straddled = bare.encode([bare.render([user("th"), assistant("e answer")])])
    assert tokens(tokenizer, straddled.rows[0]) == [(False, ["▁t", "h"]), (True, ["e", "▁an", "sw", "er"])]
    assert straddled.straddled == 1


def test_a_completion_is_encoded_as_it_stands_behind_its_prompt():
    tokenizer = byte_level(CHATML, SPECIAL, eos="<|im_end|>")
    chat = ChatRenderer(tokenizer)
    pair = chat.encode(chat.render_pair([HI], [assistant("\nworld")]))
    assert tokens(tokenizer, pair.rows[1])[0] == (True, ["Ċ", "world", "<|im_end|>"])
    assert pair.straddled == 1
    tokenizer = sentencepiece_like(GEMMA, ["<start_of_turn>", "<end_of_turn>"], eos="</s>", bos="<s>")
    chat = ChatRenderer(tokenizer)
    pair = chat.encode(chat.render_pair([HI], [assistant("answer")]))
    assert tokens(tokenizer, pair.rows[1])[0] == (True, ["an", "sw", "er", "<end_of_turn>"])


def test_wordpiece_drops_whitespace_and_straddles_nothing():
    tokenizer = wordpiece(CHATML, SPECIAL, eos="<|im_end|>")
    chat = ChatRenderer(tokenizer)
    encoded = chat.encode([chat.render([HI, assistant("\n The answer \n")])])
    assert tokens(tokenizer, encoded.rows[0]) == [
        (False, ["<|im_start|>", "user", "h", "##i", "<|im_end|>"]),
        (False, ["<|im_start|>", "assistant"]),
        (True, ["the", "answer", "<|im_end|>"]),
    ]
    assert encoded.straddled == 0


def test_a_tokenizer_without_offsets_encodes_each_span():
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = MISTRAL
    chat = ChatRenderer(tokenizer)
    encoded = chat.encode([chat.render([HI, YO])])
    assert not tokenizer.is_fast
    assert [(s.trained, tokenizer.decode(s.token_ids)) for s in encoded.rows[0]] == [(False, "[INST] Hi [/INST]"), (True, " Yo</s>")]
    assert encoded.straddled == 0


def test_a_doubled_bos_is_counted():
    tokenizer = byte_level(LLAMA3, SPECIAL, eos="<|eot_id|>", bos="<|im_start|>")
    chat = ChatRenderer(tokenizer, chat_template="{{ bos_token }}" + LLAMA3)
    assert chat.encode([chat.render([HI, YO])]).duplicate_bos == 1
    chat = ChatRenderer(tokenizer)
    assert chat.encode([chat.render([HI, YO])]).duplicate_bos == 0


def test_nothing_to_encode():
    chat = renderer(CHATML)
    assert chat.encode([]).rows == ()
    assert chat.encode([Rendering(text="", spans=())]).rows == ((),)
    assert chat.encode([Rendering(text="a", spans=(Span(start=0, end=1, source="model", trained=True),))]).rows[0][0].trained
