"""The models and data that the scripts name, as folders of these names: the embedded model, and rows of its task."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from burnish.demo import load_path, make_pairs, make_rows

PLAIN = ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2-0.5B-Instruct", "HuggingFaceTB/SmolLM3-3B")
WITH_TOOLS = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-4B")
TOOLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] or '' }}"
    "{% for call in message.get('tool_calls') or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
SHORTER = (("max_steps=1000", "max_steps=2"), ("* 500", "* 2"))
"""What would run for hours."""
ROWS, PROMPTS = 8, 4


def with_burnish(script: str) -> str:
    """The script with its import lines changed, and its steps cut short."""
    for long, short in SHORTER:
        script = script.replace(long, short)
    return re.sub(r"^from trl(?=[. ])", "from burnish", script, flags=re.MULTILINE)


def boxed(count: int) -> list[dict[str, Any]]:
    """Sums whose answers stand in a box, as mathematical rewards read them."""
    rows = make_rows(count, seed=0, split="train")
    return [{"messages": [row["messages"][0], {"role": "assistant", "content": f"$\\boxed{{{row['answer']}}}$"}]} for row in rows]


def teach(folder: Path, steps: int = 64) -> Path:
    """The embedded model, so far that it ends its answers, and that some answers to these rows are right."""
    from burnish import SFTConfig, SFTTrainer

    args = SFTConfig(output_dir=str(folder), max_steps=steps, learning_rate=3e-3, save_strategy="no", disable_tqdm=True)
    trainer = SFTTrainer(str(load_path()), args, train_dataset=boxed(PROMPTS))
    trainer.train()
    trainer.save_model()
    return folder


def make_folders(here: Path, model: Path) -> None:
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for name in (*PLAIN, *WITH_TOOLS):
        (here / name).mkdir(parents=True)
        for file in names:
            shutil.copy(model / file, here / name / file)
    for name in WITH_TOOLS:
        (here / name / "chat_template.jinja").write_text(TOOLS, encoding="utf-8")
    for name, rows in datasets().items():
        (here / name).mkdir(parents=True)
        (here / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (here / name / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]), encoding="utf-8")
    with_config(here / "FreedomIntelligence/medical-o1-reasoning-SFT", "en")
    make_adapter(here / "trl-lib/Qwen3-4B-LoRA", here / PLAIN[0])


def with_config(folder: Path, name: str) -> None:
    """The name of a configuration, as a card on the hub has it."""
    front = f"---\nconfigs:\n- config_name: {name}\n  data_files:\n  - split: train\n    path: train.jsonl\n---\n"
    (folder / "README.md").write_text(front, encoding="utf-8")


def make_adapter(folder: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def datasets() -> dict[str, list[dict[str, Any]]]:
    """Rows with the columns that the named sets have."""
    rows, pairs = make_rows(ROWS, seed=0, split="train"), make_pairs(ROWS, seed=0, split="train")
    both = [(pair["prompt"] + pair["chosen"], pair["prompt"] + pair["rejected"]) for pair in pairs]
    return {
        "trl-lib/Capybara": [{"source": "sums", "messages": row["messages"], "num_turns": 1} for row in rows],
        "trl-lib/DeepMath-103K": [{"prompt": row["messages"][:-1], "solution": f"${row['answer']}$"} for row in rows[:PROMPTS]],
        "trl-lib/ultrafeedback_binarized": [
            {"chosen": chosen, "rejected": rejected, "score_chosen": 8.0, "score_rejected": 2.0} for chosen, rejected in both
        ],
        "trl-lib/kto-mix-14k": [
            {"prompt": pair["prompt"], "completion": pair["chosen" if i % 2 else "rejected"], "label": bool(i % 2)}
            for i, pair in enumerate(pairs)
        ],
        "FreedomIntelligence/medical-o1-reasoning-SFT": [
            {"Question": row["messages"][0]["content"], "Complex_CoT": "Add.", "Response": row["messages"][1]["content"]} for row in rows
        ],
    }
