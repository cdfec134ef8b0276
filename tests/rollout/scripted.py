"""A sampler that says what it is told to, and a ChatML tokenizer with tools."""

from __future__ import annotations

from collections import deque

import numpy as np

from burnish.rollout.groups import Prompt
from burnish.rollout.sampler import Completion
from tests.chat_tokenizers import byte_level

END = "<|im_end|>"
SPECIAL = ["<|im_start|>", END, "<think>", "</think>", "<tool_call>", "</tool_call>"]
CHATML_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and m.reasoning_content %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{% if m.content or not loop.first %}\n{% endif %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n'
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatml(template=CHATML_TOOLS):
    return byte_level(template, SPECIAL, eos=END)


def ask(name, **arguments):
    """A call as Qwen writes it."""
    import json

    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Scripted:
    """Says `turns[sample]`, one after the other; a turn that does not end with the end-of-turn token was cut off, or stopped by a text."""

    exact = True

    def __init__(self, tokenizer, turns, *, reason="length"):
        self.tokenizer, self.turns, self.reason = tokenizer, [list(texts) for texts in turns], reason
        self.requests = []

    def sample(self, requests, then):
        waiting = deque(requests)
        while waiting:
            request = waiting.popleft()
            self.requests.append(request)
            text = self.turns[request.sample].pop(0)
            ids = self.tokenizer.encode(text, add_special_tokens=False)[: request.max_tokens]
            ended = ids[-1] == self.tokenizer.eos_token_id
            completion = Completion(
                request=request,
                token_ids=np.array(ids, np.int32),
                logp=-np.arange(request.first, request.first + len(ids), dtype=np.float32),
                sampled_logp=None,
                finish_reason="stop" if ended else self.reason,
                policy_version=3,
            )
            following = then(completion)
            if following is not None:
                waiting.append(following)
            yield completion, following is None


def drawn(turns, row, *, draw="0:1:train:0"):
    (ids,) = turns.render([row])
    return Prompt(place="train:0", draw=draw, row=row, token_ids=ids)


def play(turns, tokenizer, texts, row, **options):
    """The rollouts of a prompt, one for each list of texts, and the sampler that said them."""
    sampler = Scripted(tokenizer, texts, **options)
    prompt = drawn(turns, row)
    ended = [one for one, over in sampler.sample([turns.begin(prompt, i) for i in range(len(texts))], turns.then) if over]
    rollouts = sorted((turns.rollout(one) for one in ended), key=lambda one: one.sample)
    return rollouts, sampler


def shown(tokenizer, path):
    """The tokens of a path as text: what is trained between ⟦ and ⟧, tools' between ‹ and ›."""
    marks = {"tool": ("‹", "›"), "template": ("", ""), "prompt": ("{", "}")}
    parts = []
    for segment in path.segments:
        left, right = ("⟦", "⟧") if segment.trained else marks[segment.source]
        parts.append(left + tokenizer.decode(segment.token_ids.tolist()) + right)
    return "".join(parts)
