"""Chat rendering on small templates, with every expected span worked by hand: `⟦…⟧` is what is trained."""

import copy

import pytest

from burnish.data.chat import ChatRenderer, ChatTemplateError
from burnish.data.template import FollowedTemplate
from tests.chat_tokenizers import byte_level
from tests.data.small_templates import (
    BY_INDEX,
    CHATML,
    CHATML_MARKED,
    GEMMA,
    HI,
    IN_A_MACRO,
    IN_PARTS,
    JOINED,
    LLAMA3,
    MISTRAL,
    PLAIN,
    PREFILLED,
    QWEN3,
    SPECIAL,
    TWICE,
    UNCLOSED,
    YO,
    A,
    Q,
    assistant,
    call,
    renderer,
    result,
    shown,
    system,
    user,
)

CASES = {
    "chatml": (CHATML, [system("Be."), HI, YO], {}, f"<|im_start|>system\nBe.<|im_end|>\n{Q}{A}⟦Yo<|im_end|>⟧\n"),
    "whitespace and markers in content": (
        CHATML,
        [user(" <|im_end|>\nassistant\n"), assistant("\n\n<|im_start|>assistant\nYo<|im_end|>\n "), user("東京"), assistant("")],
        {},
        f"<|im_start|>user\n <|im_end|>\nassistant\n<|im_end|>\n{A}⟦\n\n<|im_start|>assistant\nYo<|im_end|>\n <|im_end|>⟧\n"
        f"<|im_start|>user\n東京<|im_end|>\n{A}⟦<|im_end|>⟧\n",
    ),
    "the model speaks first and twice": (CHATML, [YO, assistant("Yo?"), HI, HI], {}, f"{A}⟦Yo<|im_end|>⟧\n{A}⟦Yo?<|im_end|>⟧\n{Q}{Q}"),
    "a generation prompt is no turn": (CHATML, [HI, YO, HI], {"add_generation_prompt": True}, f"{Q}{A}⟦Yo<|im_end|>⟧\n{Q}{A}"),
    "marks decide": (CHATML_MARKED, [HI, YO], {}, f"{Q}{A}⟦Yo<|im_end|>\n⟧"),
    "llama 3": (
        LLAMA3,
        [HI, assistant(" Yo \n")],
        {},
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦Yo<|eot_id|>⟧",
    ),
    "llama 3, the model first: BOS is no part of its turn": (
        LLAMA3,
        [YO],
        {},
        "<s><|start_header_id|>assistant<|end_header_id|>\n\n⟦Yo<|eot_id|>⟧",
    ),
    "qwen 3 drops earlier thinking": (
        QWEN3,
        [HI, assistant("Yo", reasoning_content="hm"), HI, assistant("<think>\nso\n</think>\n\nYo")],
        {},
        f"{Q}{A}⟦Yo<|im_end|>⟧\n{Q}{A}⟦<think>\nso\n</think>\n\nYo<|im_end|>⟧\n",
    ),
    "qwen 3 without thinking: the empty thinking is given": (
        QWEN3,
        [HI, YO, HI, YO],
        {"chat_template_kwargs": {"enable_thinking": False}},
        f"{Q}{A}⟦Yo<|im_end|>⟧\n{Q}{A}<think>\n\n</think>\n\n⟦Yo<|im_end|>⟧\n",
    ),
    "qwen 3 calls": (
        QWEN3,
        [HI, assistant("", thinking="hm", tool_calls=call("sun", {"at": "12"})), result("up"), YO, HI, YO],
        {},
        f'{Q}{A}⟦\n<tool_call>\nsun {{"at": "12"}}\n</tool_call><|im_end|>⟧\n'
        f"<|im_start|>user\n<tool_response>up</tool_response><|im_end|>\n{A}⟦Yo<|im_end|>⟧\n"
        f"{Q}{A}⟦<think>\n\n</think>\n\nYo<|im_end|>⟧\n",
    ),
    "mistral: no header, and the space is the model's": (
        MISTRAL,
        [HI, YO, HI, YO],
        {},
        "<s>[INST] Hi [/INST]⟦ Yo<|im_end|>⟧[INST] Hi [/INST]⟦ Yo<|im_end|>⟧",
    ),
    "gemma": (GEMMA, [HI, assistant("\nYo ")], {}, "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n⟦Yo<end_of_turn>⟧\n"),
    "prefilled thinking": (PREFILLED, [HI, assistant("<think>hm</think>Yo")], {}, "<|user|>Hi<|assistant|>⟦Yo<|im_end|>⟧"),
    "a prompt that no turn keeps to": (
        CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}").replace(
            "{{ message['content'] }}", "{% if message.role == 'assistant' %}<think></think>{% endif %}{{ message['content'] }}"
        ),
        [HI, YO],
        {},
        f"{Q}{A}⟦<think></think>Yo<|im_end|>⟧\n",
    ),
    "a header that differs from the prompt in whitespace": (
        CHATML.replace("assistant\n{% endif %}", "assistant \n\n{% endif %}"),
        [HI, YO],
        {},
        f"{Q}{A}⟦Yo<|im_end|>⟧\n",
    ),
    "unclosed": (UNCLOSED, [HI, YO, HI, assistant("Yo ")], {}, "<|user|>\nHi<|assistant|>⟦\nYo⟧<|user|>\nHi<|assistant|>⟦\nYo⟧ "),
    "no special token at all": (PLAIN, [HI, YO, HI, YO], {}, "### user:\nHi\n\n### assistant:\n⟦Yo⟧\n\n" * 2),
    "results in the call's block": (
        JOINED,
        [HI, assistant("", tool_calls=call("sun", {})), result("up"), YO, HI, YO],
        {},
        "<|turn>user\nHi<turn|>\n<|turn>model\n⟦<|call>sun<call|><|response>⟧up<response|>⟦Yo<turn|>⟧\n"
        "<|turn>user\nHi<turn|>\n<|turn>model\n⟦Yo<turn|>⟧\n",
    ),
    "content behind the results": (
        JOINED,
        [HI, assistant("So:", tool_calls=call("sun", {})), result("up"), YO],
        {},
        "<|turn>user\nHi<turn|>\n<|turn>model\n⟦<|call>sun<call|><|response>⟧up<response|>⟦So:Yo<turn|>⟧\n",
    ),
    "nothing is given after a result, and yet there is a header": (
        CHATML.replace("add_generation_prompt", "add_generation_prompt and messages[-1].role == 'user'"),
        [HI, YO, result("up"), YO],
        {},
        f"{Q}{A}⟦Yo<|im_end|>⟧\n<|im_start|>tool\nup<|im_end|>\n{A}⟦Yo<|im_end|>⟧\n",
    ),
    "in a macro": (IN_A_MACRO, [HI, YO], {}, f"{Q}{A}⟦Yo<|im_end|>⟧\n"),
    "by index": (BY_INDEX, [HI, YO, HI, YO], {}, f"{Q}{A}⟦Yo<|im_end|>⟧\n" * 2),
    "content in parts": (IN_PARTS, [HI, YO], {}, f"{Q}{A}⟦Yo<|im_end|>⟧\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_spans(name):
    template, messages, options, expected = CASES[name]
    given = copy.deepcopy(messages)
    rendering = renderer(template).render(messages, **options)
    assert shown(rendering) == expected
    assert messages == given
    if name != "content in parts":
        kwargs = {**options.pop("chat_template_kwargs", {}), **options}
        tokenizer = byte_level(template, SPECIAL, eos="<|im_end|>", bos="<s>")
        assert rendering.text == tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)


def test_sources():
    rendering = renderer(QWEN3).render([system("Be."), HI, assistant("", tool_calls=call("sun", {})), result("up"), YO])
    assert [(span.source, rendering.text[span.start : span.end]) for span in rendering.spans] == [
        ("prompt", "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"),
        ("template", "<|im_start|>assistant\n"),
        ("model", "\n<tool_call>\nsun {}\n</tool_call><|im_end|>"),
        ("template", "\n"),
        ("tool", "<|im_start|>user\n<tool_response>up</tool_response><|im_end|>\n"),
        ("template", "<|im_start|>assistant\n"),
        ("model", "<think>\n\n</think>\n\nYo<|im_end|>"),
        ("template", "\n"),
    ]
    joined = renderer(JOINED).render([HI, assistant("", tool_calls=call("sun", {})), result("up"), YO])
    assert [span.source for span in joined.spans] == ["prompt", "template", "model", "tool", "model", "template"]


@pytest.mark.parametrize(
    ("template", "options", "departures"),
    [(CHATML, {}, 0), (PREFILLED, {}, 2), (QWEN3, {}, 0), (QWEN3, {"chat_template_kwargs": {"enable_thinking": False}}, 1)],
)
def test_turns_that_depart_from_the_generation_prompt_are_counted(template, options, departures):
    assert renderer(template).render([HI, YO, HI, YO], **options).departures == departures


def test_a_stop_token_at_the_head_of_the_next_turn_closes_an_unclosed_one():
    tokenizer = byte_level(UNCLOSED, SPECIAL, eos="<|im_end|>")
    stops = [tokenizer.convert_tokens_to_ids("<|user|>")]
    rendering = ChatRenderer(tokenizer, stop_token_ids=stops).render([HI, YO, HI, YO, HI])
    assert shown(rendering) == "<|user|>\nHi<|assistant|>⟦\nYo<|user|>⟧\nHi<|assistant|>⟦\nYo<|user|>⟧\nHi"
    assert rendering.end_of_turn == "<|user|>"


def test_end_of_turn_problem():
    chatml, unclosed, llama = renderer(CHATML), renderer(UNCLOSED), renderer(LLAMA3)
    assert chatml.end_of_turn_problem(chatml.render([HI, YO])) is None
    assert chatml.end_of_turn_problem(chatml.render([HI])) is None
    assert unclosed.end_of_turn_problem(unclosed.render([HI, YO])) == (
        "The trained turns end in no added token, at which generation does not stop (it stops at: '<|im_end|>'); "
        "set eos_token to what ends a turn."
    )
    rendering = llama.render([HI, YO])
    assert llama.end_of_turn_problem(rendering) == (
        "The trained turns end in '<|eot_id|>', at which generation does not stop (it stops at: '<|im_end|>'); "
        "set eos_token to what ends a turn."
    )
    eot = byte_level(LLAMA3, SPECIAL, eos="<|im_end|>", bos="<s>").convert_tokens_to_ids("<|eot_id|>")
    assert llama.end_of_turn_problem(rendering, [eot]) is None


REFUSED = {
    "the template's own words": (GEMMA, [system("Be.")], {}, "The chat template refuses the conversation: System role not supported."),
    "with the message": (
        GEMMA,
        [HI, YO, YO],
        {},
        "The chat template refuses message 2 (role 'assistant'): Conversation roles must alternate.",
    ),
    "empty": (CHATML, [], {}, "The conversation has no message; give at least one."),
    "torn": (TWICE, [HI, YO], {}, "The chat template writes message 1 in several places, so it has no span; use another template."),
    "marks in content": (
        CHATML,
        [HI, assistant("\U00100000")],
        {},
        "A message holds private-use characters between U+100000 and U+10FFF2, used as marks here; drop them.",
    ),
    "unread option": (
        CHATML,
        [HI, YO],
        {"chat_template_kwargs": {"enable_thinking": False}},
        "The chat template does not read 'enable_thinking' of chat_template_kwargs; take it out.",
    ),
    "reserved option": (
        CHATML,
        [HI, YO],
        {"chat_template_kwargs": {"messages": []}},
        "chat_template_kwargs holds 'messages', which has a place of its own; take it out.",
    ),
    "unread tools": (
        CHATML,
        [HI, YO],
        {"tools": [{"name": "sun"}]},
        "The chat template does not read tools, so these would be lost; use one that does, or drop them.",
    ),
    "unread calls": (
        CHATML,
        [HI, assistant("", tool_calls=call("sun", {}))],
        {},
        "The chat template leaves out the call of 'sun' in message 1; use one that writes tool calls.",
    ),
    "a header of its own": (
        UNCLOSED.replace("<|assistant|>{%", "<|model|>{%"),
        [HI, YO],
        {},
        "Message 1 is rendered as '<|assistant|>\\nYo' though the model is given '<|model|>', so where its own text starts is unknown; "
        "add {% generation %} marks to the chat template.",
    ),
    "changed by a later message, in no loop": (
        BY_INDEX.replace("{{ message['content'] }}", "{{ message['content'] }}{{ messages | length }}"),
        [HI, YO, HI],
        {},
        "The chat template writes message 1 in no loop over messages and changes it for later ones, so its span is unknown; "
        "add {% generation %} marks to it.",
    ),
    "marks captured and trimmed": (
        "{% for m in messages %}{% set t %}{% generation %} {{ m.content }} {% endgeneration %}{% endset %}{{ t | trim }}{% endfor %}",
        [HI, YO],
        {},
        "The chat template reads back what it writes for messages, so it cannot be followed; use another.",
    ),
    "captured and read back": (
        "{% set all %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ all | length }}{{ all }}",
        [HI, YO],
        {},
        "The chat template reads back what it writes for messages, so it cannot be followed; use another.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    template, messages, options, expected = REFUSED[name]
    with pytest.raises(ChatTemplateError) as error:
        renderer(template).render(messages, **options)
    assert str(error.value) == expected


def test_no_template_and_one_that_does_not_compile():
    with pytest.raises(ChatTemplateError, match=r"^The tokenizer \(TokenizersBackend\) has no chat template; set one, or give "):
        renderer(None)
    with pytest.raises(ChatTemplateError, match=r"^The chat template is not valid Jinja \(line 1: "):
        renderer("{% for m in messages %}")
    assert shown(renderer(None, chat_template=MISTRAL).render([HI, YO])) == "<s>[INST] Hi [/INST]⟦ Yo<|im_end|>⟧"


def test_arguments_are_given_as_the_template_takes_them():
    as_dict, as_text = assistant("", tool_calls=call("sun", {"at": "12"})), assistant("", tool_calls=call("sun", '{"at": "12"}'))
    calls = "{% for c in message.tool_calls %}{{ c.function.name + c.function.arguments }}{% endfor %}"
    joins = CHATML.replace("<|im_end|>", f"{calls}<|im_end|>")
    for template, expected in ((QWEN3, 'sun {"at": "12"}'), (joins, 'sun{"at": "12"}')):
        for message in (as_dict, as_text):
            chat = renderer(template)
            for _ in range(2):
                assert expected in shown(chat.render([HI, message]))


def test_pairs_meet_where_the_model_begins():
    prompt, completion = renderer(CHATML).render_pair([HI, YO, HI], [YO, HI, YO])
    assert shown(prompt) == f"{Q}{A}Yo<|im_end|>\n{Q}{A}"
    assert shown(completion) == f"⟦Yo<|im_end|>⟧\n{Q}{A}⟦Yo<|im_end|>⟧\n"
    assert [(span.source, span.trained) for span in prompt.spans] == [
        ("prompt", False),
        ("template", False),
        ("model", False),
        ("template", False),
        ("prompt", False),
        ("template", False),
    ]
    assert (completion.before, prompt.before, completion.end_of_turn, prompt.end_of_turn) == (prompt.text, "", "<|im_end|>", None)
    prompt, completion = renderer(PREFILLED).render_pair([HI], [YO])
    assert (shown(prompt), shown(completion), completion.departures) == ("<|user|>Hi<|assistant|>", "⟦Yo<|im_end|>⟧", 1)
    prompt, completion = renderer(QWEN3).render_pair([HI], [YO], chat_template_kwargs={"enable_thinking": False})
    assert (shown(prompt), shown(completion)) == (f"{Q}{A}<think>\n\n</think>\n\n", "⟦Yo<|im_end|>⟧\n")
    prompt, completion = renderer(CHATML).render_pair([HI], [HI, YO])
    assert (shown(prompt), shown(completion)) == (Q, f"{Q}{A}⟦Yo<|im_end|>⟧\n")
    with pytest.raises(ChatTemplateError, match=r"^The completion has no message; give at least one\.$"):
        renderer(CHATML).render_pair([HI], [])


@pytest.mark.parametrize(("template", "renderings"), [(CHATML, 1), (LLAMA3, 1), (QWEN3, 1), (CHATML_MARKED, 1), (GEMMA, 1), (PLAIN, 3)])
def test_a_row_is_rendered_once_where_the_generation_prompt_is_constant(template, renderings, monkeypatch):
    chat = renderer(template)
    chat.render([HI, YO])
    count = []
    trace = FollowedTemplate.trace
    monkeypatch.setattr(FollowedTemplate, "trace", lambda *args, **kwargs: count.append(1) or trace(*args, **kwargs))
    chat.render([HI, YO, HI, YO])
    assert len(count) == renderings
