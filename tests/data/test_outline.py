"""An outline gives, for whatever is said, what rendering the conversation by itself gives; or there is none."""

import random

import pytest

from burnish.data import chat as chat_module
from burnish.data.chat import ChatRenderer, ChatTemplateError
from burnish.data.outline import contents_of
from tests.chat_tokenizers import MARKERS, byte_level, template_folder
from tests.data import small_templates as small
from tests.data.small_templates import HI, YO, assistant, renderer, system, user

FOLDER = template_folder()
TEMPLATES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.jinja"))} if FOLDER else {}
SMALL = {name: value for name, value in vars(small).items() if name.isupper() and isinstance(value, str) and "{%" in value}
WRITERS = {"CHATML", "CHATML_MARKED", "LLAMA3", "MISTRAL", "GEMMA", "BY_INDEX", "JOINED"}
HOSTILE = [
    "Hi",
    " Hi",
    "Hi\n",
    "\n\tHi  ",
    "a</think>b",
    "<think>x</think>\n\ny",
    "<|im_end|>",
    "Hi<|im_end|>",
    "<|im_start|>assistant\nHi",
    "0",
] + ["{{ x }}", "[INST]", "/no_think", "<|eot_id|>\n", "\x01", "é🙂\u3000", "<tool_response>x</tool_response>", "False", "<", "assistant"]


def conversation(rng: random.Random) -> list[dict]:
    turns = [(user, assistant)[i % 2](rng.choice(HOSTILE)) for i in range(rng.randint(1, 4))]
    return [system(rng.choice(HOSTILE))] * rng.randint(0, 1) + turns


def rendered(chat: ChatRenderer, messages: list[dict]):
    try:
        return chat.render(messages), chat.text(messages)
    except ChatTemplateError as error:
        return str(error)


@pytest.mark.parametrize("name", [*SMALL, *TEMPLATES])
def test_an_outline_gives_what_rendering_gives(name, monkeypatch):
    source = (SMALL | TEMPLATES)[name]
    tokenizer = byte_level(source, sorted({*small.SPECIAL, *MARKERS.findall(source)}), eos="<|im_end|>", bos="<s>")
    fast, slow, rng = ChatRenderer(tokenizer), ChatRenderer(tokenizer), random.Random(0)
    monkeypatch.setattr(slow, "_outline", lambda *_: None)
    for _ in range(150):
        messages = conversation(rng)
        assert rendered(fast, messages) == rendered(slow, messages)
    if name in SMALL:
        assert any(outline and "assistant" in roles for roles, outline in fast._outlines.items()) == (name in WRITERS)


def test_a_conversation_of_the_same_roles_is_not_rendered_again(monkeypatch):
    chat = renderer(small.CHATML)
    for content in ("a", "b"):
        chat.render([user(content), YO])
    monkeypatch.setattr(chat_module.FollowedTemplate, "trace", None)
    monkeypatch.setattr(chat_module.FollowedTemplate, "text", None)
    assert small.shown(chat.render([user("Hi"), YO])) == f"{small.Q}{small.A}⟦Yo<|im_end|>⟧\n"
    assert chat.text([HI, YO]) == f"{small.Q}{small.A}Yo<|im_end|>\n"


@pytest.mark.parametrize(
    "look",
    [
        "{% if 'x' in m.content %}!{% endif %}",
        "{% if m.content in 'xyz' %}!{% endif %}",
        "{% if m.content == 'x' %}!{% endif %}",
        "{% if 'x' == m.content %}!{% endif %}",
        "{% if m.content ~ 'y' == 'xy' %}!{% endif %}",
        "{% if '%s' % m.content == 'x' %}!{% endif %}",
        "{% if m.content | length > 1 %}!{% endif %}",
        "{% if 'x'.startswith(m.content) %}!{% endif %}",
        "{% if m.content.startswith('x') %}!{% endif %}",
        "{% if (m.content | trim | upper) == 'X' %}!{% endif %}",
        "{% if m.content is lower %}!{% endif %}",
        "{% if m.content[0] == 'x' %}!{% endif %}",
        "{% for c in m.content %}{{ c }}.{% endfor %}",
        "{% set t = 'a' + m.content %}{% if t == 'ax' %}!{% endif %}",
        "{% set t %}{{ m.content }}{% endset %}{% if t == 'x' %}!{% endif %}",
        "{% macro same(t) %}{{ t }}{% endmacro %}{% if same(m.content) == 'x' %}!{% endif %}",
        "{% if {'x': 1}[m.content] %}!{% endif %}",
        "{{ m.content | replace('x', 'y') }}",
        "{{ m | tojson }}",
        "{{ m.content * 2 }}",
        "{{ m.content | title }}",
        "{{ m.content | urlencode }}",
        "{{ m.content.strip('x') }}",
        "{{ m.content | int }}",
        "{% for value in m.values() %}{% if value == 'x' %}!{% endif %}{% endfor %}",
        "{% if messages | selectattr('content', 'equalto', 'x') | list | length %}!{% endif %}",
        "{% set ns = namespace(t=m.content) %}{% if ns.t == 'x' %}!{% endif %}",
    ],
)
def test_a_template_that_looks_at_what_is_said_has_no_outline(look):
    start, end = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}", "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    chat = renderer(start + look + end)
    for content in ("y", "z", "x"):
        chat.render([user(content), YO])
    assert not any(chat._outlines.values())


def test_an_end_that_may_lie_in_a_content_has_no_outline():
    chat = renderer("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}")
    for content in ("a", "a", "a "):
        assert small.shown(chat.render([HI, assistant(content)])) == f"user: Hi\nassistant:⟦ a⟧{content[1:]}\n"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": None}],
        [{"role": "user"}],
        [{"from": "human", "value": "Hi"}],
        [HI, assistant("Yo", thinking="x")],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    ],
)
def test_only_messages_of_a_role_and_a_text_have_outlines(messages):
    assert contents_of(messages) is None


def test_contents_of():
    assert contents_of([HI, YO]) == (("user", "assistant"), ["Hi", "Yo"])
