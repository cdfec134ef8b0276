"""What stands between two turns is what the chat template writes there, for every known one."""

import pytest

from burnish.data.chat import ChatRenderer, ChatTemplateError
from burnish.rollout.between import Between
from tests.chat_tokenizers import MARKERS, byte_level, template_folder
from tests.data.small_templates import JOINED, QWEN3, SPECIAL
from tests.rollout.scripted import END, chatml

FOLDER = template_folder()
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.jinja")) if FOLDER else []
EOS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "diffusion_gemma": "<turn|>",
    "gemma4": "<turn|>",
    "gemma": "<end_of_turn>",
    "glm4moe": "<|endoftext|>",
    "gptoss": "<|return|>",
    "idefics3": "<end_of_utterance>",
    "lfm": "<|im_end|>",
    "llama": "<|eot_id|>",
    "llava": "</s>",
    "muse": "<|eot|>",
    "nemotron": "<|im_end|>",
    "phi3": "<|endoftext|>",
    "qwen": "<|im_end|>",
    "smolvlm": "<end_of_utterance>",
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks.",
            "parameters": {"type": "object", "properties": {"at": {"type": "string", "description": "At what."}}, "required": ["at"]},
        },
    }
]
NONE = {"tools": None, "chat_template_kwargs": None}
HI = {"role": "user", "content": "o0z hi"}
LOOK = {"id": "call00000", "type": "function", "function": {"name": "look", "arguments": {"at": "m1z"}}}
CALL = {"role": "assistant", "content": "", "tool_calls": [LOOK]}
SEEN = {"role": "tool", "name": "look", "content": "o1z grass"}
WITHOUT_TOOLS = {
    *("cohere", "cohere2", "deepseek_r1_distill", "deepseekv3", "gemma", "gemma3", "idefics3", "llama3", "llava_next", "phi3", "phi3_5"),
    *("qwen2_5_vl", "smolvlm"),
}
WITHOUT_CALLS = {"lfm2"}
"""Its model writes calls as content."""


def tokenizer_for(name):
    text = (FOLDER / f"{name}.jinja").read_text()
    eos = next(eos for prefix, eos in EOS.items() if name.startswith(prefix))
    return byte_level(text, sorted({*MARKERS.findall(text), eos, "<s>"}), eos=eos, bos="<s>")


def text_of(tokenizer, segments):
    return "".join(tokenizer.decode(segment.token_ids.tolist()) for segment in segments)


@pytest.mark.skipif(not TEMPLATES, reason="no chat templates: install trl, or set BURNISH_CHAT_TEMPLATES to a folder of them")
@pytest.mark.parametrize("name", TEMPLATES or ["none"])
def test_every_template_after_a_users_answer(name):
    """The whole conversation is the history up to the end of the turn, and then this; nothing of it is trained."""
    tokenizer = tokenizer_for(name)
    between, history = Between(tokenizer), [HI, {"role": "assistant", "content": "m1z well"}]
    said = {"role": "user", "content": "o2z more"}
    segments = between.after_turn([said], NONE, ended=True)
    whole = ChatRenderer(tokenizer).prompt_text([*history, said])
    assert between.keeps(history, [said], NONE)
    assert whole.endswith(text_of(tokenizer, segments))
    assert text_of(tokenizer, segments).count("z") == text_of(tokenizer, segments).count("o2z") == 1
    assert not any(segment.trained for segment in segments)
    assert [segment.source for segment in segments if "o2z" in tokenizer.decode(segment.token_ids.tolist())] == ["tool"]


@pytest.mark.skipif(not TEMPLATES, reason="no chat templates: install trl, or set BURNISH_CHAT_TEMPLATES to a folder of them")
@pytest.mark.parametrize("name", TEMPLATES or ["none"])
def test_every_template_after_a_call(name):
    tokenizer, options = tokenizer_for(name), {"tools": TOOLS, "chat_template_kwargs": None}
    between, family = Between(tokenizer), name.removesuffix("_training")
    if family in WITHOUT_TOOLS:
        with pytest.raises(ChatTemplateError, match="does not read tools"):
            between.after_turn([SEEN], options, ended=True)
        return
    segments = between.after_turn([SEEN], options, ended=True)
    history = [HI, {"role": "assistant", "content": "m1z"} if family in WITHOUT_CALLS else CALL]
    whole = ChatRenderer(tokenizer).prompt_text([*history, SEEN], tools=TOOLS)
    assert between.keeps([HI, CALL], [SEEN], options)
    assert whole.endswith(text_of(tokenizer, segments))
    assert "o1z" in text_of(tokenizer, segments)
    assert "m1z" not in text_of(tokenizer, segments)


def test_tokens_are_those_of_the_whole_conversation():
    """Appended to the ids of the history, they are the ids of everything encoded at once."""
    tokenizer, said = chatml(), {"role": "user", "content": "\n\nand  now?"}
    history = [HI, {"role": "assistant", "content": "well\n"}]
    before = tokenizer.apply_chat_template(history, tokenize=True, return_dict=False)
    end = len(before) - before[::-1].index(tokenizer.eos_token_id)
    whole = tokenizer.apply_chat_template([*history, said], tokenize=True, return_dict=False, add_generation_prompt=True)
    segments = Between(tokenizer).after_turn([said], NONE, ended=True)
    assert [int(i) for segment in segments for i in segment.token_ids] == whole[end:]
    assert [segment.source for segment in segments] == ["template", "tool", "template"]


def test_a_turn_that_did_not_end_itself_is_ended():
    """One that a text stopped has no end-of-turn token; the template's comes before the rest, untrained."""
    tokenizer, said = chatml(), {"role": "user", "content": "more"}
    ended, stopped = (Between(tokenizer).after_turn([said], NONE, ended=one) for one in (True, False))
    assert text_of(tokenizer, stopped) == END + text_of(tokenizer, ended)
    assert not any(segment.trained for segment in stopped)


def test_several_results():
    tokenizer = chatml()
    segments = Between(tokenizer).after_turn(
        [SEEN, SEEN | {"content": "o2z trees"}], {"tools": TOOLS, "chat_template_kwargs": None}, ended=True
    )
    assert text_of(tokenizer, segments) == (
        f"\n<|im_start|>tool\no1z grass{END}\n<|im_start|>tool\no2z trees{END}\n<|im_start|>assistant\n"
    )


def test_reasoning_that_is_dropped_is_a_history_that_is_rewritten():
    """Qwen3's template keeps reasoning before a result, and drops it before a user's message; an empty thought is none."""
    between = Between(byte_level(QWEN3, SPECIAL, eos=END, bos="<s>"))
    more, thought = {"role": "user", "content": "more"}, {"reasoning_content": "hm"}
    said = {"role": "assistant", "content": "well"}
    assert between.keeps([HI, said], [more], NONE)
    assert not between.keeps([HI, said | thought], [more], NONE)
    assert between.keeps([HI, CALL | thought], [SEEN], NONE)


def test_a_result_in_the_block_of_its_call():
    """What the model says beside its call comes after the result in such a template: no place to append it."""
    between = Between(byte_level(JOINED, SPECIAL, eos="<turn|>", bos="<s>"))
    assert between.keeps([HI, CALL], [SEEN], NONE)


def test_text_has_no_template():
    tokenizer = chatml()
    (segment,) = Between(tokenizer).plain("\n= 5\n")
    assert (tokenizer.decode(segment.token_ids.tolist()), segment.source, segment.trained) == ("\n= 5\n", "tool", False)
