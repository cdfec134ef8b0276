"""Law *round trip*: the trained mask covers exactly the assistant's tokens and the end-of-turn token, for every known chat template.

The templates are those of about forty model families, stock and with `{% generation %}` marks, as the `trl` package carries them; they
are looked for in `$BURNISH_CHAT_TEMPLATES` or in an installed `trl`. Every message's text is made of words that occur nowhere else in
its conversation, so that it can be said of each character of a rendering whose it is.
"""

import json
import random
import re
from os.path import commonprefix
from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from burnish.data.chat import ChatRenderer, ChatTemplateError, to_messages
from tests.chat_tokenizers import MARKERS, byte_level, template_folder

FOLDER = template_folder()
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.jinja")) if FOLDER else []
pytestmark = pytest.mark.skipif(not TEMPLATES, reason="no chat templates: install trl, or set BURNISH_CHAT_TEMPLATES to a folder of them")

FAMILIES = {  # prefix of the name → BOS, EOS, what closes an assistant's turn
    "cohere": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", {"<|END_OF_TURN_TOKEN|>"}),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", {"<｜end▁of▁sentence｜>"}),
    "diffusion_gemma": ("<bos>", "<turn|>", {"<turn|>", "<|tool_response>"}),
    "gemma4": ("<bos>", "<turn|>", {"<turn|>", "<|tool_response>"}),
    "gemma": ("<bos>", "<end_of_turn>", {"<end_of_turn>"}),
    "glm4moe": (None, "<|endoftext|>", {None, "</tool_call>", "</think>"}),
    "gptoss": ("<|startoftext|>", "<|return|>", {"<|return|>", "<|call|>"}),
    "idefics3": ("<|begin_of_text|>", "<end_of_utterance>", {"<end_of_utterance>"}),
    "lfm": ("<|startoftext|>", "<|im_end|>", {"<|im_end|>"}),
    "llama": ("<|begin_of_text|>", "<|eot_id|>", {"<|eot_id|>"}),
    "llava": ("<s>", "</s>", {"</s>"}),
    "muse": ("<|begin|>", "<|eot|>", {"<|eot|>"}),
    "nemotron": ("<s>", "<|im_end|>", {"<|im_end|>"}),
    "phi3": ("<s>", "<|endoftext|>", {"<|end|>"}),
    "qwen": (None, "<|im_end|>", {"<|im_end|>"}),
    "smolvlm": ("<|im_start|>", "<end_of_utterance>", {"<end_of_utterance>"}),
}
ADDED_BY_MARKS = {  # stock family → what the marks of its twin take in around each turn: one of these before it, this after it
    "cohere": ([""], ""),
    "cohere2": ([""], ""),
    "deepseek_r1_distill": (["<｜Assistant｜>", "<｜tool▁outputs▁end｜>"], ""),
    "deepseekv3": (["<｜Assistant｜>", "<｜tool▁outputs▁end｜>"], ""),
    "gemma": ([""], "\n"),
    "gemma3": ([""], "\n"),
    "gptoss": (["<|start|>assistant"], ""),
    "idefics3": ([""], "\n"),
    "lfm2": ([""], "\n"),
    "lfm2_v2": ([""], "\n"),
    "llama3": ([""], ""),
    "llava_next": ([""], ""),
    "muse_glimmer": (["<|start|>assistant"], ""),
    "phi3": ([""], "\n"),
    "phi3_5": ([""], "\n"),
    "qwen2_5": (["\n"], "\n"),
    "qwen2_5_vl": ([""], "\n"),
    "qwen3_instruct_2507": ([""], "\n"),
    "qwen3_vl": ([""], "\n"),
    "smolvlm": ([""], "\n"),
}
"""The other twins write another text: they keep thinking that the stock template drops, or move a turn's first token."""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}, "required": ["city"]},
        },
    }
]
UNKNOWN = {"deepseekv3": "is rendered as '\\n<｜tool▁call▁begin｜>"}
"""Where a span cannot be told: this template writes only the first call of a conversation with an assistant's header and content."""


class Writer:
    """Conversations whose words say whose they are: `m12z` is the model's, `o12z` anyone else's."""

    SHAPES = (
        "@",
        "@ @",
        "  @\n",
        "\n\n@ \n @\n\n",
        "@<|im_end|>\n@",
        "assistant\n@",
        "<|im_start|>assistant\n@<|eot_id|>@</s>",
        "@é 東京 🙂 @",
        "# @\n\n- @\n",
        "{{ @ }} {% @ %}",
        "'@' \"@\" \\@",
    )

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def text(self, whose: str, *, empty: float = 0.05) -> str:
        if self.random.random() < empty:
            return ""
        return re.sub("@", lambda _: self.word(whose), self.random.choice(self.SHAPES))

    def word(self, whose: str) -> str:
        self.count += 1
        return f"{whose}{self.count}z"

    def assistant(self, *, thinking: str | None, call: bool = False) -> dict:
        message = {"role": "assistant", "content": self.text("m")}
        if thinking == "field":
            message["reasoning_content"] = self.word("m")
        elif thinking == "inline":
            message["content"] = f"<think>\n{self.word('m')}\n</think>\n\n{message['content']}"
        if call:
            function = {"name": "get_weather", "arguments": {"city": self.word("m"), "days": 3}}
            message["content"] = self.random.choice(["", self.word("m")])
            message["tool_calls"] = [{"id": "c1", "type": "function", "function": function}]
        return message

    def conversation(self, *, tools: bool, thinking: str | None, consecutive: bool) -> list[dict]:
        messages = [{"role": "system", "content": self.text("o", empty=0)}] if self.random.random() < 0.4 else []
        for _ in range(self.random.randint(1, 4)):
            messages.append({"role": "user", "content": self.text("o")})
            if consecutive and self.random.random() < 0.4:
                messages.append({"role": "user", "content": self.text("o")})
            if tools and self.random.random() < 0.6:
                messages.append(self.assistant(thinking=thinking, call=True))
                for _ in range(self.random.randint(1, 2)):
                    messages.append({"role": "tool", "name": "get_weather", "tool_call_id": "c1", "content": self.word("o")})
            messages.append(self.assistant(thinking=thinking))
            if consecutive and self.random.random() < 0.4:
                messages.append(self.assistant(thinking=None))
        return messages


def conversations() -> list[tuple[list[dict], dict]]:
    """(messages, options) of every kind, the same in every run."""
    rows: list[tuple[list[dict], dict]] = []
    for seed in range(36):
        writer = Writer(seed)
        tools = seed % 3 == 2
        thinking = (None, "field", "inline")[(seed // 3) % 3]
        messages = writer.conversation(tools=tools, thinking=thinking, consecutive=seed % 4 == 3)
        options: dict = {"tools": TOOLS} if tools and seed % 2 else {}
        if seed % 5 == 4:
            options["chat_template_kwargs"] = {"enable_thinking": seed % 2 == 0}
        rows.append((messages, options))
    return rows


ROWS = conversations()


def make_renderer(name: str) -> tuple[ChatRenderer, object]:
    source = (Path(FOLDER or ".") / f"{name}.jinja").read_text()
    bos, eos, _ = family(name)
    special = sorted({*MARKERS.findall(source), "<|im_end|>", "<|eot_id|>", "<|end|>", eos, *([bos] if bos else [])})
    tokenizer = byte_level(source, special, eos=eos, bos=bos)
    return ChatRenderer(tokenizer), tokenizer


def render(renderer: ChatRenderer, messages: list[dict], options: dict):
    """(the rendering, "") or (None, why it is refused)"""
    try:
        return renderer.render(messages, **options), ""
    except ChatTemplateError as error:
        return None, str(error)


def family(name: str) -> tuple[str | None, str, set]:
    return next(facts for prefix, facts in FAMILIES.items() if name.startswith(prefix))


def in_parts(messages: list[dict]) -> list[dict]:
    return [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]


def with_text_arguments(messages: list[dict]) -> list[dict]:
    def text(call: dict) -> dict:
        return call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}

    return [m | {"tool_calls": [text(call) for call in m["tool_calls"]]} if "tool_calls" in m else m for m in messages]


def plain_rendering(tokenizer, text: str | None, messages: list[dict], options: dict, **more) -> tuple[str | None, list[dict], list[str]]:
    """What `apply_chat_template` writes: (text, the messages as they had to be given for it, why it refuses other forms of them)."""
    kwargs = {"tools": options.get("tools"), **options.get("chat_template_kwargs", {}), **more}
    reasons = []
    found = None
    for variant in (messages, in_parts(messages), with_text_arguments(messages)):
        try:
            found = tokenizer.apply_chat_template(variant, tokenize=False, **kwargs)
        except (TemplateError, TypeError, LookupError) as error:
            reasons.append(" ".join(str(error).split()).rstrip(".! "))
            continue
        if text is None or found == text:
            return found, variant, reasons
    return None, messages, reasons


def trained(rendering) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in rendering.spans if span.trained]


def covered(spans, position: int) -> bool:
    return any(start <= position < end for start, end in spans)


def check_words(rendering) -> None:
    spans = trained(rendering)
    for found in re.finditer(r"([mo])\d+z", rendering.text):
        inside = {covered(spans, at) for at in range(*found.span())}
        assert inside == {found[1] == "m"}, (found[0], rendering.text)


def check_starts(tokenizer, rendering, messages: list[dict], options: dict) -> int:
    """Where what the model is given, rendered by itself, is a prefix of the rendering, the model's text starts at its end."""
    spans, checked = trained(rendering), 0
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or "add_generation_prompt" not in tokenizer.chat_template:
            continue
        given = plain_rendering(tokenizer, None, messages[:i], options, add_generation_prompt=True)[0] if i else None
        without = plain_rendering(tokenizer, None, messages[:i], options)[0] if i else None
        if given is None or given == without or not rendering.text.startswith(given):
            continue
        if not message["content"] and rendering.end_of_turn is None:
            continue  # nothing is generated, not even an end of the turn
        merged = covered(spans, len(given) - 1) and covered(spans, len(given)) and messages[i - 1]["role"] != "user"
        assert merged or len(given) in [start for start, _ in spans], (given, rendering.text)
        checked += 1
    return checked


def check_headers(tokenizer, rendering, messages: list[dict], options: dict) -> None:
    """No turn starts with what the template writes for the model to answer a question."""
    question = [{"role": "user", "content": "?"}]
    without, given = (plain_rendering(tokenizer, None, question, options, add_generation_prompt=flag)[0] for flag in (False, True))
    if without is None or given is None:
        return
    prompt = given[len(commonprefix([given, without])) :].strip()
    if prompt and not any(prompt in str(message["content"]) for message in messages):
        assert not any(rendering.text.startswith(prompt, start) for start, _ in trained(rendering))


def check_ends(name: str, rendering) -> None:
    closing = family(name)[2]
    ends = [rendering.text[start:end] for start, end in trained(rendering)]
    assert all(end == end.rstrip() for end in ends)
    assert rendering.end_of_turn in closing
    if None not in closing:
        assert ends[-1].endswith(rendering.end_of_turn)


def marked_characters(tokenizer, messages: list[dict], options: dict) -> list[tuple[int, int]]:
    _, marks = render_jinja_template(
        [messages],
        tools=options.get("tools"),
        chat_template=tokenizer.chat_template,
        return_assistant_tokens_mask=True,
        **{**tokenizer.special_tokens_map, **options.get("chat_template_kwargs", {})},
    )
    return marks[0]


def check_refusal(name: str, tokenizer, refusal: str, messages: list[dict], options: dict) -> None:
    """A row is refused for the template's own reason, for what the template would ignore, or where `UNKNOWN` has it."""
    text, _, reasons = plain_rendering(tokenizer, None, messages, options)
    unread = re.search(r"does not read (tools|'(\w+)' of chat_template_kwargs)", refusal)
    if unread:
        assert not re.search(rf"\b{unread[2] or 'tools'}\b", re.sub("{#.*?#}", "", tokenizer.chat_template, flags=re.DOTALL))
    elif "leaves out the call of" in refusal:
        assert text is not None
        cities = [call["function"]["arguments"]["city"] for message in messages for call in message.get("tool_calls", ())]
        assert any(city not in text for city in cities)
    elif name in UNKNOWN:
        assert UNKNOWN[name] in refusal
    else:
        assert text is None
        assert any(why in refusal for why in reasons)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_mask_is_the_assistants_text_and_its_end_of_turn_token(name):
    renderer, tokenizer = make_renderer(name)
    has_marks = re.search(r"\{%-?\s*generation", tokenizer.chat_template) is not None
    rendered, starts = [], 0
    for messages, options in ROWS:
        rendering, refusal = render(renderer, messages, options)
        if rendering is None:
            check_refusal(name, tokenizer, refusal, messages, options)
            continue
        text, given, reasons = plain_rendering(tokenizer, rendering.text, to_messages(messages), options)
        assert text == rendering.text, reasons
        assert "".join(text[span.start : span.end] for span in rendering.spans) == text
        check_words(rendering)
        if has_marks:
            marks = marked_characters(tokenizer, given, options)
            assert [covered(marks, i) for i in range(len(text))] == [covered(trained(rendering), i) for i in range(len(text))]
        else:
            starts += check_starts(tokenizer, rendering, given, options)
            check_headers(tokenizer, rendering, given, options)
            check_ends(name, rendering)
        rendered.append((rendering, given, options))
    assert len(rendered) >= 6
    assert has_marks or starts or "add_generation_prompt" not in tokenizer.chat_template or name.startswith("deepseek")
    check_tokens(renderer, tokenizer, rendered)


def check_tokens(renderer, tokenizer, rendered) -> None:
    """Ids are those of `apply_chat_template`, or the row is counted; the trained tokens are the trained characters."""
    straddled = 0
    encoded = renderer.encode([rendering for rendering, _, _ in rendered])
    for (rendering, given, options), segments in zip(rendered, encoded.rows, strict=True):
        ids = [token for segment in segments for token in segment.token_ids.tolist()]
        kwargs = {"tools": options.get("tools"), **options.get("chat_template_kwargs", {})}
        whole = tokenizer.apply_chat_template(given, tokenize=True, return_dict=False, **kwargs)
        straddled += ids != whole
        assert tokenizer.decode(ids) == rendering.text
        texts = [tokenizer.decode(segment.token_ids) for segment in segments if segment.trained]
        assert texts == [rendering.text[start:end] for start, end in trained(rendering)]
    assert straddled == encoded.straddled


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name in ADDED_BY_MARKS])
def test_without_marks_the_turns_are_those_that_the_marks_name(name):
    (stock, tokenizer), (twin, _) = make_renderer(name), make_renderer(f"{name}_training")
    before, after = ADDED_BY_MARKS[name]
    compared = 0
    for messages, options in ROWS:
        ours, marked = render(stock, messages, options)[0], render(twin, messages, options)[0]
        if ours is None or marked is None or ours.text != marked.text:
            continue
        around = []
        for start, end in trained(ours):
            header = next(text for text in before if ours.text.endswith(text, 0, start))
            assert ours.text.startswith(after, end)
            around.append((start - len(header), end + len(after)))
        marks = trained(marked)
        if name.startswith("phi3"):  # they also take in the EOS behind the conversation
            marks[-1] = (marks[-1][0], marks[-1][1] - len(tokenizer.eos_token))
        assert [covered(around, i) for i in range(len(ours.text))] == [covered(marks, i) for i in range(len(ours.text))]
        compared += 1
    assert compared >= 5
