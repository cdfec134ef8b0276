"""Three optimizer steps of ours and of TRL's SFTTrainer: same model, rows, order and hyper-parameters, in float32.

    python -m bench.parity_sft --trl-python .venv-trl/bin/python

prints loss and gradient norm of both for each kind of row and each step, and exits with status 1 unless every loss agrees to
1e-4 and every gradient norm to 1e-3, both relative. How it is compared: `parity.py`.
"""

from __future__ import annotations

from typing import Any

from bench.parity import FACTS, Case, arguments, main
from bench.subjects.preparation import MARKED_CHATML

# as SmolLM2's own template: with a message of the system where there is none
EACH = "{% for message in messages %}"
WITH_SYSTEM = MARKED_CHATML.replace(
    EACH,
    EACH + "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}",
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
    "chat, assistant only": Case(rows=chat_rows(), options={"assistant_only_loss": True}, more={"chat_template": WITH_SYSTEM}),
    "text, dft": Case(rows=TEXTS, options={"loss_type": "dft"}),
}

if __name__ == "__main__":
    main(CASES, arguments(__doc__))
