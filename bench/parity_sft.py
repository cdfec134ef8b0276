"""Three optimizer steps of ours and of TRL's SFTTrainer: same model, rows, order and hyper-parameters, in float32.

    python -m bench.parity_sft --trl-python .venv-trl/bin/python

prints loss and gradient norm of both for each kind of row and each step, and exits with status 1 unless every loss agrees to
1e-4 and every gradient norm to 1e-3, both relative. How it is compared: `parity.py`.
"""

from __future__ import annotations

from typing import Any

from bench.parity import FACTS, Case, arguments, main

# ChatML as SmolLM2 has it, with the marks TRL needs to know what the assistant said. Ours is given the same.
MARKED_CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_rows() -> list[dict[str, Any]]:
    """Every third row has a system message, every second a first exchange before the one asked for."""
    rows = []
    for i, (question, answer) in enumerate(FACTS):
        turns = [("system", "Answer in few words.")] if i % 3 == 0 else []
        turns += [("user", "Hi there"), ("assistant", "Good day. What would you like to know?")] if i % 2 else []
        turns += [("user", question), ("assistant", answer)]
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    return rows


TEXTS = [{"text": f"{question} {answer}"} for question, answer in FACTS]
COMPLETIONS = [{"prompt": question, "completion": " " + answer} for question, answer in FACTS]
CASES = {
    "text": Case(rows=TEXTS),
    "prompt-completion": Case(rows=COMPLETIONS),
    "prompt-completion, all": Case(rows=COMPLETIONS, options={"completion_only_loss": False}),
    "chat": Case(rows=chat_rows()),
    "chat, assistant only": Case(rows=chat_rows(), options={"assistant_only_loss": True}, more={"chat_template": MARKED_CHATML}),
    "text, dft": Case(rows=TEXTS, options={"loss_type": "dft"}),
}

if __name__ == "__main__":
    main(CASES, arguments(__doc__))
