"""Small chat templates, one for each way in which real ones write a conversation, and messages to write with them."""

from burnish.data.chat import ChatRenderer
from tests.chat_tokenizers import byte_level

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# Drops the thinking of every turn before the last question, and writes an empty one for a last turn that has none.
QWEN3 = (
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set think = m.reasoning_content or '' %}{% set content = m.content or '' %}"
    "{% if '</think>' in content %}{% set think = content.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set content = content.split('</think>')[-1].lstrip() %}{% endif %}"
    "{{ '<|im_start|>assistant\n' }}"
    "{% if loop.index0 > ns.last and (loop.last or think) %}{{ '<think>\n' + think + '\n</think>\n\n' }}{% endif %}{{ content }}"
    "{% for call in m.tool_calls or [] %}{{ '\n<tool_call>\n' + call.function.name + ' ' + (call.function.arguments | tojson) }}"
    "{{ '\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}{{ '<|im_start|>user\n<tool_response>' + m.content + '</tool_response><|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles.') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# The generation prompt begins the thinking; a turn without any is written without it.
PREFILLED = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content }}{% else %}"
    "{{ '<|assistant|>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
# A turn is closed by the next one's first token.
UNCLOSED = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# The prompt stands in the last pass of the loop; nothing is a special token.
PLAIN = (
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}{% endfor %}"
)
# Results stand in the block of the call, and the answer continues it.
JOINED = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|turn>user\n' + m.content + '<turn|>\n' }}{% elif m.role == 'assistant' %}"
    "{% if loop.index0 == 0 or loop.previtem.role == 'user' %}{{ '<|turn>model\n' }}{% endif %}{{ m.thinking or '' }}"
    "{% if m.tool_calls %}{{ '<|call>' + m.tool_calls[0].function.name + '<call|><|response>' }}"
    "{% if not loop.last and loop.nextitem.role == 'tool' %}{{ loop.nextitem.content + '<response|>' }}{% endif %}"
    "{% if not loop.last %}{{ m.content or '' }}{% endif %}"
    "{% else %}{{ m.content + '<turn|>\n' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role == 'user' %}{{ '<|turn>model\n' }}{% endif %}"
)
IN_A_MACRO = (
    "{% macro write(turns) %}{% for m in turns %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% endmacro %}"
    "{{ write(messages) }}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BY_INDEX = CHATML.replace("for message in messages %}", "for i in range(messages | length) %}{% set message = messages[i] %}")
IN_PARTS = CHATML.replace("message['content'] }}", "message['content'][0]['text'] }}")
TWICE = "{% for m in messages %}{{ m.role }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>"]
SPECIAL += ["<|user|>", "<|assistant|>", "<|turn>", "<turn|>", "<|call>", "<call|>", "<|response>", "<response|>", "<think>", "</think>"]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments):
    return [{"type": "function", "function": {"name": name, "arguments": arguments}}]


def result(content):
    return {"role": "tool", "content": content}


def renderer(template, **options):
    return ChatRenderer(byte_level(template, SPECIAL, eos="<|im_end|>", bos="<s>"), **options)


def shown(rendering):
    parts = [rendering.text[span.start : span.end] for span in rendering.spans]
    assert "".join(parts) == rendering.text
    return "".join(f"⟦{part}⟧" if span.trained else part for part, span in zip(parts, rendering.spans, strict=True))


HI, YO = user("Hi"), assistant("Yo")
Q, A = "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|>assistant\n"
"""ChatML: HI, and what the model is given to answer it."""
